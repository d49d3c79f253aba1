"""A training loop of your own, in plain torch: photos, mixing and losses as in fit, everything else by hand.

python examples/own_loop.py [PHOTOS]    # by default drawn people
"""

import torch

import multihead as mh


def main(root, epochs=8, backbone="resnet10t", size=96):
    torch.manual_seed(0)  # new weights begin at random
    train, valid = mh.read(root).split(0.2, seed=0)
    model = mh.Model(backbone, heads=[head.on(mh.FULL.resized(size)) for head in mh.HEADS])
    recipe = mh.Recipe(augment=mh.Flip(), losses=mh.Focal(), smoothing=0.05)
    batches = mh.Batches(model, train, recipe)
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * len(batches))
    for epoch in range(1, epochs + 1):
        model.train()
        losses = []
        for batch in batches:
            loss = batches.loss(model(batch.images, batch.present), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch}: loss {sum(losses) / len(losses):.3f}, macro-F1 {mh.evaluate(model, valid).f1:.3f}")
    return mh.evaluate(model, valid).f1


if __name__ == "__main__":
    from start import start

    start(main)
