import json
import pickle
import re
import zipfile

import pytest
import torch

from multihead import archives


class Half(torch.nn.Module):
    def forward(self, rows):
        return (rows / 2).flatten(1)


class Evil:
    def __reduce__(self):
        return print, ("ran",)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "model.pt2"
    rows = torch.export.Dim("rows", min=1, max=64)
    torch.export.save(torch.export.export(Half(), (torch.ones(2, 3, 4),), dynamic_shapes=({0: rows},)), path)
    return path


def changed(good, path, change):
    """The archive with the members [(name without its first folder, content)] that `change` makes of each."""
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            top, _, rest = name.partition("/")
            for inner, content in change(rest, old.read(name)):
                new.writestr(f"{top}/{inner}", content)
    return path


def test_opens_what_an_export_wrote(good):
    program = archives.load(good).module()
    for rows in (1, 3, 64):
        batch = torch.rand(rows, 3, 4)
        torch.testing.assert_close(program(batch), batch.flatten(1) / 2)


def test_guards_which_are_code_are_not_run(good, tmp_path, capsys):
    def change(name, content):
        if name == "models/model.json":
            graph = json.loads(content)
            graph["guards_code"] = ["print('ran') is None"]
            content = json.dumps(graph).encode()
        return [(name, content)]

    program = archives.load(changed(good, tmp_path / "model.pt2", change)).module()
    program(torch.ones(2, 3, 4))
    assert capsys.readouterr().out == ""


def samples(name, content):
    return [(name, pickle.dumps(Evil()) if name == archives.SAMPLES else content)]


def a_pickle(name, content):
    return [
        (name, content.replace(b'"use_pickle": false', b'"use_pickle": true')) if "config" in name else (name, content)
    ]


def an_object(name, content):
    table = {"config": {"evil": {"path_name": "opaque_obj_0", "use_pickle": False}}}
    return [(name, json.dumps(table).encode() if name.endswith("constants_config.json") else content)]


def legacy(name, content):
    return [(name, content)] + ([("data/weights/model.pt", pickle.dumps(Evil()))] if name == "byteorder" else [])


def an_expression(name, content):
    if name == "models/model.json":
        content = re.sub(rb'"Symbol\([^"]*"', rb'"__import__(0).getcwd()"', content)
    return [(name, content)]


def a_call(name, content):
    return [(name, content.replace(b"torch.ops.aten.flatten.using_ints", b"torch._C._jit_exec"))]


def a_file(name, content):
    """A step that opens, and makes, a file: its name is a text among the arguments."""
    if name == "models/model.json":
        graph = json.loads(content)
        node = graph["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.ops.aten.from_file.default"
        node["inputs"][0]["arg"] = {"as_string": "a_file"}
        content = json.dumps(graph).encode()
    return [(name, content)]


def a_name(name, content):
    """A text among the arguments, as only few operations of a model have one."""
    if name == "models/model.json":
        graph = json.loads(content)
        graph["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_string": "a_file"}
        content = json.dumps(graph).encode()
    return [(name, content)]


def a_module(name, content):
    """A description of the inputs by which torch would import a module of that name."""
    if name == "models/model.json":
        graph = json.loads(content)
        spec = {"type": "builtins.dict", "context": '[{"__enum__": true, "fqn": "evil:E"}]', "children_spec": []}
        graph["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps([1, spec])
        content = json.dumps(graph).encode()
    return [(name, content)]


def a_type(name, content):
    if name == "models/model.json":
        graph = json.loads(content)
        spec = {"type": "collections.defaultdict", "context": "null", "children_spec": []}
        graph["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps([1, spec])
        content = json.dumps(graph).encode()
    return [(name, content)]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (a_file, "has the step 'torch.ops.aten.from_file.default'"),
        (a_name, "has the step 'a_file'"),
        (a_module, "has the step .*builtins.dict"),
        (a_type, "has the step .*defaultdict"),
        (samples, "holds pickled objects, which could run code"),
        (an_object, "as a pickled object"),
        (legacy, "holds .*data/weights/model.pt.*an export does not write"),
        (an_expression, "has the step .*__import__"),
        (a_call, "has the step 'torch._C._jit_exec'"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_could_run_code_is_refused(good, tmp_path, change, text, capsys):
    path = changed(good, tmp_path / "model.pt2", change)
    with pytest.raises(ValueError, match=text):
        archives.load(path)
    assert capsys.readouterr().out == ""


def test_a_pickled_weight_is_refused(tmp_path):
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), path)
    archives.check(path)
    with pytest.raises(ValueError, match="holds '.*weight' as a pickled object, which could run code"):
        archives.check(changed(path, tmp_path / "bad.pt2", a_pickle))


def test_no_archive(tmp_path):
    (tmp_path / "a").write_bytes(b"PK nonsense")
    with pytest.raises(ValueError, match="is no archive of torch.export"):
        archives.load(tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "b", "w") as empty:
        empty.writestr("m/byteorder", "little")
    with pytest.raises(ValueError, match="is no graph of torch.export that can be opened"):
        archives.load(tmp_path / "b")
