"""A film answered frame by frame: a line as soon as a frame is answered, in memory that does not grow.

python examples/film.py MODEL FILM    # a video, a folder of frames, or a camera's number; Ctrl-C ends it
"""

import contextlib
from collections import Counter
from pathlib import Path

import cv2

import multihead as mh
from multihead.images import iter_image_files


def frames(film):
    """The frames one by one: a folder's paths in the order of their names, a video's RGB arrays (H, W, 3).

    Raises: ValueError where OpenCV opens no video.
    """
    if Path(film).is_dir():
        yield from iter_image_files(film)
        return
    video = cv2.VideoCapture(int(film) if str(film).isdecimal() else str(film))
    try:
        if not video.isOpened():
            raise ValueError(f"{film} is no video that OpenCV opens; expected one, a folder of frames or a number")
        while (read := video.read())[0]:
            yield read[1][:, :, ::-1]  # OpenCV's are BGR
    finally:
        video.release()


def main(model, film):
    model = mh.load(model)
    names = [head.name for head in model.space]
    found = Counter()
    with contextlib.suppress(KeyboardInterrupt):
        # each frame is answered before the next is read
        for number, row in enumerate(mh.stream(model, frames(film), batch_size=1, workers=0)):
            print(f"frame {number}: {row['error'] or ', '.join(row[name] for name in names)}", flush=True)
            found[row[names[0]] or "unreadable"] += 1
    counts = ", ".join(f"{count} {name}" for name, count in found.most_common())
    print(f"{found.total()} frames: {counts}")
    return found


if __name__ == "__main__":
    from start import told, words

    with told():
        main(*words(2, 2))
