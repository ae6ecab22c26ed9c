"""Checkpoints are read without running them: what is good is read, what is hostile is refused with a typed error."""

from __future__ import annotations

import collections
import io
import json
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.errors import BadModelFile, ModelNotFound
from rechka.hub import checkpoints, pickles
from rechka.hub.checkpoints import TorchFile
from rechka.hub.pickles import BadPickle, Global, Made, plain, read_pickle

GOLDEN = Path(__file__).parents[1] / "data" / "gigaam"
RAN: list[str] = []


class Bomb:
    """Unpickled by Python's own reader, it would leave a trace."""

    def __reduce__(self):
        return RAN.append, ("ran",)


class System:
    def __reduce__(self):
        import os

        return os.system, ("echo ran",)


READ = (type(None), bool, int, float, str, bytes, list, tuple, dict, Global, Made)
"""All that the reader gives."""
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(-(2**30), 2**30) | st.booleans(), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(value=PLAIN, protocol=st.integers(3, 5))  # before that, bytes are a call
def test_plain_values_come_back(value, protocol):
    assert read_pickle(pickle.dumps(value, protocol)) == value


def outcome(read):
    """What was read, or the words of the refusal. Any other error is a fault."""
    try:
        return read()
    except BadPickle as error:
        return str(error)


@settings(max_examples=100)
@given(data=st.binary(max_size=80))
def test_noise_is_refused_or_read(data):
    """Whatever bytes come, the answer is a value, made of nothing but what the reader makes, or BadPickle."""
    assert isinstance(outcome(lambda: read_pickle(data)), READ)


@settings(max_examples=100)
@given(value=PLAIN, place=st.floats(0, 1), byte=st.integers(0, 255))
def test_a_damaged_pickle_is_refused_or_read(value, place, byte):
    data = bytearray(pickle.dumps(collections.OrderedDict(a=value), 2))
    data[int(place * (len(data) - 1))] = byte
    assert isinstance(outcome(lambda: plain(read_pickle(bytes(data)))), READ)


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_is_refused_and_does_not_happen(protocol):
    with pytest.raises(BadPickle, match="refused and nothing was run"):
        read_pickle(pickle.dumps({"a": Bomb()}, protocol))
    with pytest.raises(BadPickle, match=r"(posix|nt)\.system"):
        read_pickle(pickle.dumps(System(), protocol))
    assert RAN == []


@pytest.mark.parametrize(
    "data",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\ngetattr\n.",
        b"(S'x'\ni__builtin__\nexec\n.",  # INST
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",  # STACK_GLOBAL
        b"ctorch.hub\nload\n.",
        b"cos\nsystem\n.",
    ],
)
def test_functions_by_any_operation_are_refused(data):
    with pytest.raises(BadPickle, match="no checkpoint needs"):
        read_pickle(data)


def test_what_is_known_is_described_and_not_made():
    made = read_pickle(pickle.dumps(collections.OrderedDict(a=1), 2))
    assert isinstance(made, Made)
    assert made.of == Global("collections", "OrderedDict")
    assert plain(made) == {"a": 1}
    assert plain(read_pickle(pickle.dumps(Path("x"), 2))).of.module == "pathlib"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no pickle"),
        (b"N", "no pickle"),  # no STOP
        (b".", "takes more than it put"),
        (b"0.", "takes more than it put"),
        (b"(0.", "takes more than it put"),
        (b"t.", "unbalanced mark"),
        (b"g7\n.", "never had"),
        (b"NNR.", "calls what is no function"),
        (b"NNa.", "appends to what is no list"),
        (b"NNNs.", "keys of what is no dictionary"),
        (b"(NNNd.", "key that has no value"),
        (b"}])s.", "key of type"),
        (b"}L99999999999999999999L\nNs.", "key of type int"),
        (b"}(NNttNs.", "unbalanced mark"),
        (b"\x82\x01.", "operation EXT1"),
        (b"\x97.", "operation NEXT_BUFFER"),
        (b"X\xff\xff\xff\x7fab.", "no pickle"),
        (b"\x8d" + b"\xff" * 7 + b"\x7fab.", "no pickle"),
        (b"r\xff\xff\xff\x7f.", "takes more than it put"),
        (b"P1\n.", "outside itself"),
    ],
)
def test_malformed_pickles(data, words):
    with pytest.raises(BadPickle, match=words):
        read_pickle(data)


def test_a_huge_place_in_memory_costs_nothing():
    """Python's own reader makes room for every place up to the one that is named."""
    assert read_pickle(b"]r\xff\xff\xff\x7f.") == []


def test_limits(monkeypatch):
    monkeypatch.setattr(pickles, "MAX_OPERATIONS", 100)
    with pytest.raises(BadPickle, match="more than 100 operations"):
        read_pickle(b"]" * 101 + b".")
    monkeypatch.setattr(pickles, "MAX_BYTES", 50)
    with pytest.raises(BadPickle, match="at most 50"):
        read_pickle(b"]" * 51)


def test_values_that_would_never_end():
    """Nested twenty thousand deep, in themselves, and shared so often that a plain walk would not come to an end."""
    deep = b"]" * 20_000 + b"a" * 19_999 + b"."
    value = read_pickle(deep)
    with pytest.raises(BadPickle, match="deep"):
        plain(value)
    with pytest.raises(BadPickle, match="contains itself"):
        plain(read_pickle(b"]q\x00h\x00a."))
    shared = b"]q\x00" + b"".join(b"]q%c(h%ch%ce0h%c" % (i + 1, i, i, i + 1) for i in range(50)) + b"."
    twice = plain(read_pickle(shared))
    assert twice[0] is twice[1]
    with pytest.raises(BadPickle, match="key of type"):  # hashing such a key would overrun the stack
        read_pickle(b"}" + b")" + b"\x85" * 20_000 + b"Ns.")


# ---- checkpoints ----


def torch_file(path: Path, data: bytes, members: dict[str, bytes], **more) -> Path:
    with zipfile.ZipFile(path, "w", **more) as archive:
        archive.writestr("x/data.pkl", data)
        for name, content in members.items():
            archive.writestr(f"x/data/{name}", content)
    return path


def tensor(kind: str = "FloatStorage", size: int = 4, shape=(2, 2), strides=(2, 1), offset: int = 0) -> bytes:
    """A checkpoint ``{"w": tensor}`` by hand."""

    def numbers(values) -> bytes:
        return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"

    block = b"(X\x07\x00\x00\x00storagectorch\n" + kind.encode() + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    block += b"J" + struct.pack("<i", size) + b"tQ"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + block + b"J" + struct.pack("<i", offset)
    return b"\x80\x02}X\x01\x00\x00\x00w" + call + numbers(shape) + numbers(strides) + b"\x89NtRs."


VALUES = np.arange(4, dtype=np.float32)


def test_the_published_layout_is_read_without_torch_and_omegaconf(monkeypatch):
    for name in ("torch", "omegaconf", "hydra"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it now fails
    with TorchFile(GOLDEN / "tiny_v3_ctc.ckpt") as file:
        assert file.keys == ("cfg", "state_dict")
        config = file.section("cfg")
        arrays = file.read(file.tensors("state_dict"))
    assert json.loads(json.dumps(config)) == config
    assert config["encoder"]["pos_emb_max_len"] == 5000
    assert config["decoding"]["vocabulary"][:2] == [" ", "а"]
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    assert arrays["head.decoder_layers.0.weight"].shape == (34, 16, 1)
    bank = arrays["preprocessor.featurizer.0.mel_scale.fb"]
    assert np.array_equal(bank.view(np.uint32) & 0xFFFF, np.zeros(bank.shape, np.uint32))  # was bfloat16


def test_numbers_are_what_torch_reads(tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.randn(6, 5)
    tensors = {
        "plain": base,
        "turned": base.T,
        "part": base[2:4, 1:],
        "half": base.half(),
        "brain": base.bfloat16(),
        "double": base.double(),
        "whole": torch.arange(7),
        "truth": base > 0,
        "scalar": torch.tensor(3),
        "none": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base),
    }
    torch.save({"state_dict": collections.OrderedDict(tensors)}, tmp_path / "x.ckpt")
    with TorchFile(tmp_path / "x.ckpt") as file:
        arrays = file.read(file.tensors("state_dict"))
    assert list(arrays) == list(tensors)
    for name, value in tensors.items():
        wanted = (value.float() if value.is_floating_point() else value).detach().numpy()
        assert arrays[name].dtype == wanted.dtype
        assert np.array_equal(arrays[name], wanted), name


def test_a_trained_lightning_file_with_its_passengers(tmp_path):
    """Optimizer, counters and paths are carried along and not made; only what is asked for is read."""
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    saved = {
        "state_dict": layer.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "hyper_parameters": {"model_name": "v3_ctc", "root": Path("x")},
        "numpy": np.float64(3),
    }
    torch.save(saved, tmp_path / "x.ckpt")
    with TorchFile(tmp_path / "x.ckpt") as file:
        assert file.section("hyper_parameters")["model_name"] == "v3_ctc"
        assert set(file.read(file.tensors("state_dict"))) == {"weight", "bias"}


def test_a_hostile_checkpoint_is_refused(tmp_path):
    path = torch_file(tmp_path / "x.ckpt", pickle.dumps({"cfg": Bomb(), "state_dict": {}}, 2), {})
    with pytest.raises(BadModelFile, match=r"x\.ckpt asks for .* nothing was run"):
        TorchFile(path)
    assert RAN == []


def test_tensor_by_hand(tmp_path):
    with TorchFile(torch_file(tmp_path / "x", tensor(), {"0": VALUES.tobytes()})) as file:
        assert file.read(file.tensors())["w"].tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("data", "members", "words"),
    [
        (tensor(), {}, "lacks the member"),
        (tensor(), {"0": b"123"}, "3 bytes in data/0, and 16 belong there"),
        (tensor(offset=1), {"0": VALUES.tobytes()}, "in a block of 4 numbers"),
        (tensor(shape=(5, 1), strides=(0, 0)), {"0": VALUES.tobytes()}, "in a block of 4 numbers"),
        (tensor(shape=(1 << 20, 1 << 20), strides=(0, 0)), {"0": VALUES.tobytes()}, "claims"),
        (tensor(shape=(-1,), strides=(1,)), {"0": VALUES.tobytes()}, "not torch's"),
        (tensor(shape=(2, 2), strides=(1,)), {"0": VALUES.tobytes()}, "not torch's"),
        (tensor(shape=(1,) * 9, strides=(1,) * 9), {"0": VALUES.tobytes()}, "not torch's"),
        (tensor(kind="Size"), {"0": VALUES.tobytes()}, "not torch's"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, data, members, words):
    path = torch_file(tmp_path / "x", data, members)
    with pytest.raises(BadModelFile, match=words), TorchFile(path) as file:
        file.read(file.tensors())


def test_archives_that_are_none(tmp_path):
    path = tmp_path / "x.ckpt"
    with pytest.raises(ModelNotFound):
        TorchFile(path)
    for content in (b"", b"PK", pickle.dumps({"a": 1}), b"\x00" * 100):
        path.write_bytes(content)
        with pytest.raises(BadModelFile, match=r"no torch checkpoint.*before torch 1\.6"):
            TorchFile(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(BadModelFile, match="zip archive, but no torch checkpoint"):
        TorchFile(path)


def test_compressed_members_are_refused(tmp_path):
    """Torch never compresses, so a small file that unpacks to a large one is none of its."""
    data = {"0": b"\0" * 10_000_000}
    path = torch_file(tmp_path / "x", tensor(), data, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(BadModelFile, match="compressed member"):
        TorchFile(path)


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "MAX_MEMBERS", 1)
    with pytest.raises(BadModelFile, match="more than 1"):
        TorchFile(torch_file(tmp_path / "x", tensor(), {"0": VALUES.tobytes()}))


@pytest.mark.parametrize("place", [0.02, 0.1, 0.2, 0.5, 0.9, 0.999])
def test_cut_or_changed_files(tmp_path, place):
    good = (GOLDEN / "tiny_v3_ctc.ckpt").read_bytes()
    path = tmp_path / "x.ckpt"
    path.write_bytes(good[: int(place * len(good))])
    with pytest.raises(BadModelFile):
        TorchFile(path)


def test_a_changed_number_is_noticed(tmp_path):
    good = bytearray((GOLDEN / "tiny_v3_ctc.ckpt").read_bytes())
    with zipfile.ZipFile(io.BytesIO(bytes(good))) as archive:
        info = archive.getinfo("tiny_v3_ctc/data/1")
    good[info.header_offset + 200] ^= 1
    (tmp_path / "x.ckpt").write_bytes(good)
    with TorchFile(tmp_path / "x.ckpt") as file, pytest.raises(BadModelFile, match="damaged at data/1"):
        file.read(file.tensors("state_dict"))
