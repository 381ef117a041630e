"""Real loading code on tiny models: equal to the libraries' own calls, quiet, clear about what is missing."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
import torch

from lground.errors import InputError
from lground.text import encode_texts
from lground.text.hub import model_folder, wanted_patterns

TEXTS = ["chair", "office chair", "the lamp in the room", "a red table"]
IDS = [[1, 4, 12], [1, 5, 4, 12], [1, 11, 7, 9, 11, 10, 12], [1, 3, 8, 6, 12]]  # by hand from the words


def lground(*arguments, **environment):
    """Run the command as a user does, without a network or a cache unless given."""
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": "/nonexistent"} | environment
    return subprocess.run(
        [sys.executable, "-m", "lground", *map(str, arguments)],
        env=os.environ | {k: str(v) for k, v in environment.items()},
        capture_output=True,
        text=True,
        timeout=120,
    )


def one_by_one(features, ids):
    """Each text alone, so without padding."""
    with torch.no_grad():
        return torch.cat([features(torch.tensor([i])) for i in ids])


def test_clip_is_the_projected_text_tower(tiny_clip):
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(tiny_clip).eval()
    expected = one_by_one(lambda i: model.get_text_features(input_ids=i).pooler_output, IDS)
    vectors = encode_texts(TEXTS, str(tiny_clip))
    assert vectors.shape == (4, 24) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(vectors.norm(dim=1), torch.ones(4), atol=0.05)  # left as the encoder gives them
    (vectors.requires_grad_() * 2).sum().backward()  # usable in training


def test_siglip_sees_texts_padded_to_full_length(tiny_siglip):
    from transformers import SiglipModel

    model = SiglipModel.from_pretrained(tiny_siglip).eval()
    padded = [i + [0] * (16 - len(i)) for i in IDS]
    expected = one_by_one(lambda i: model.get_text_features(input_ids=i).pooler_output, padded)
    vectors = encode_texts(TEXTS, str(tiny_siglip))
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-5)
    bare = one_by_one(lambda i: model.get_text_features(input_ids=i).pooler_output, IDS)
    assert not torch.allclose(vectors, bare, atol=1e-3)  # the padding matters


def test_sentence_transformers_pool_as_they_say(tiny_sentence_transformer, tiny_bert):
    from sentence_transformers import SentenceTransformer
    from transformers import BertModel

    vectors = encode_texts(TEXTS, str(tiny_sentence_transformer))
    library = SentenceTransformer(str(tiny_sentence_transformer), device="cpu").encode(TEXTS)
    torch.testing.assert_close(vectors, torch.from_numpy(library))
    model = BertModel.from_pretrained(tiny_bert).eval()
    first = one_by_one(lambda i: model(i).last_hidden_state[:, 0], IDS)  # this one pools the first token
    torch.testing.assert_close(vectors, first, rtol=1e-4, atol=1e-5)


def test_gpt2_has_no_padding_token(tmp_path):
    """Texts of different lengths in one batch, each as when encoded alone."""
    from transformers import GPT2Config, GPT2Model, GPT2TokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    words = [*bytes_to_unicode().values(), "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = GPT2TokenizerFast(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    tokenizer.save_pretrained(tmp_path)
    config = GPT2Config(vocab_size=len(words), n_embd=16, n_layer=1, n_head=2, n_positions=32)
    model = GPT2Model(config).eval()
    model.save_pretrained(tmp_path)
    assert tokenizer.pad_token is None
    expected = one_by_one(
        lambda i: model(i).last_hidden_state.mean(1), [tokenizer(t).input_ids for t in TEXTS]
    )
    torch.testing.assert_close(encode_texts(TEXTS, str(tmp_path)), expected, rtol=1e-4, atol=1e-5)


def test_plain_language_models_get_the_mean_over_tokens(tiny_bert):
    from transformers import BertModel

    model = BertModel.from_pretrained(tiny_bert).eval()
    mean = one_by_one(lambda i: model(i).last_hidden_state.mean(1), IDS)
    torch.testing.assert_close(encode_texts(TEXTS, str(tiny_bert)), mean, rtol=1e-4, atol=1e-5)


def test_minilm_equals_sentence_transformers():
    from sentence_transformers import SentenceTransformer

    texts = ["chair", "office chair", "somewhere to sit in a very long sentence " * 60, "", "Öffnung"]
    vectors = encode_texts(texts, "minilm", batch_size=2)
    library = SentenceTransformer(str(model_folder("minilm")), device="cpu")
    torch.testing.assert_close(
        vectors, library.encode(texts, convert_to_tensor=True).cpu(), rtol=1e-5, atol=1e-6
    )
    assert vectors.shape == (5, 384)
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(vectors[0], vectors[1], dim=0) > cosine(vectors[0], vectors[4], dim=0)


def test_long_texts_are_cut_and_batches_do_not_matter(tiny_clip):
    texts = ["chair table " * 30, *TEXTS, "nobody knows this"]
    torch.testing.assert_close(
        encode_texts(texts, str(tiny_clip), batch_size=1),
        encode_texts(texts, str(tiny_clip), batch_size=64),
        **{"rtol": 1e-4, "atol": 1e-5},
    )


def test_missing_weights_are_an_error_and_not_random_numbers(tiny_clip, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_clip, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["text_model.encoder.layers.1.mlp.fc1.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"1 weights are missing, such as .*fc1"):
        encode_texts(TEXTS, str(folder))


@pytest.mark.parametrize("damage", ["model.safetensors", "tokenizer.json", "config.json"])
def test_broken_model_folders_get_one_line(tiny_clip, tmp_path, damage):
    folder = shutil.copytree(tiny_clip, tmp_path / "model")
    path = folder / damage
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError) as error:
        encode_texts(TEXTS, str(folder))
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_wrong_names(tmp_path):
    for encoder in (str(tmp_path / "nothing"), "a/b/c", "what is this", ""):
        with pytest.raises(InputError, match=r"no such folder|is no text encoder"):
            encode_texts(TEXTS, encoder)
    with pytest.raises(InputError, match="is no text encoder"):
        encode_texts(TEXTS, str(tmp_path))


def test_absent_weights_without_a_network_fail_at_once_in_one_line(tmp_path):
    done = lground("anchors", tmp_path / "a.safetensors", "--encoder", "clip", HF_HOME=tmp_path / "hf")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1
    for word in ("openai/clip-vit-base-patch32", "hf download", "HF_HOME", "folder", "minilm"):
        assert word in done.stderr
    assert not (tmp_path / "a.safetensors").exists()


def test_a_cached_model_needs_no_network_and_is_quiet(tiny_clip, tmp_path):
    cache = tmp_path / "hub" / "models--openai--clip-vit-base-patch32"
    commit = "c" * 40
    shutil.copytree(tiny_clip, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    out = tmp_path / "a.safetensors"
    done = lground("anchors", out, "--encoder", "clip", "--labels", "scannet20", HF_HOME=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines()[0] == f"{out}: 20 x 24, encoder clip, prompt {{}}"


@pytest.mark.parametrize("module", ["transformers", "sentence_transformers"])
def test_a_missing_library_says_what_to_install(module, tiny_sentence_transformer):
    encoder = "minilm" if module == "transformers" else str(tiny_sentence_transformer)
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from lground.text import encode_texts; from lground.errors import InputError\n"
        f"try: encode_texts(['chair'], {encoder!r})\n"
        "except InputError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert 'pip install "lground[text]"' in done.stdout, done.stderr


def test_files_wanted_from_the_hub():
    from huggingface_hub.utils import filter_repo_objects

    files = {
        "config.json": True,
        "tokenizer.json": True,
        "merges.txt": True,
        "spiece.model": True,
        "model.safetensors": True,
        "pytorch_model.bin": False,  # the same weights again
        "model-00001-of-00002.safetensors": True,
        "1_Pooling/config.json": True,
        "2_Dense/pytorch_model.bin": True,
        "onnx/model.onnx": False,
        "onnx/config.json": False,
        "open_clip_pytorch_model.bin": False,
        "open_clip_model.safetensors": False,
        "flax_model.msgpack": False,
        "tf_model.h5": False,
        "README.md": False,
    }
    kept = filter_repo_objects(files, allow_patterns=wanted_patterns(list(files)), ignore_patterns=["onnx/*"])
    assert list(kept) == [f for f, wanted in files.items() if wanted]
    old = ["config.json", "pytorch_model.bin"]
    assert list(filter_repo_objects(old, allow_patterns=wanted_patterns(old))) == old


@pytest.fixture
def hub(tiny_clip):
    """A Hugging Face hub on this machine that knows one model, some/clip."""
    sha = "a" * 40
    files = {f.name: f.read_bytes() for f in tiny_clip.iterdir()} | {"tf_model.h5": b"unwanted"}
    siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
    info = {"id": "some/clip", "sha": sha, "siblings": siblings}
    tree = [{"type": "file", "path": n, "size": len(d), "oid": "b" * 40} for n, d in files.items()]
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.split("?")[0]
            asked.append(path)
            name = path.rsplit("/", 1)[1]
            if path.startswith(f"/api/models/some/clip/tree/{sha}"):
                self.answer(json.dumps(tree).encode())
            elif path.startswith("/api/models/some/clip"):
                self.answer(json.dumps(info).encode())
            elif path == f"/some/clip/resolve/{sha}/{name}" and name in files:
                self.answer(files[name], {"ETag": f'"{name}"', "X-Repo-Commit": sha})
            else:
                self.answer(b"{}", {"X-Error-Code": "RepoNotFound"}, 404)

        do_HEAD = do_GET

        def answer(self, body, headers=(), status=200):
            self.send_response(status)
            for key, value in (dict(headers) | {"Content-Length": str(len(body))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_a_hub_model_is_downloaded_once(hub, tmp_path):
    address, asked = hub
    out = tmp_path / "a.safetensors"
    command = ("anchors", out, "--encoder", "some/clip", "--labels", "scannet20")
    done = lground(*command, HF_ENDPOINT=address, HF_HOME=tmp_path / "hf")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("downloading some/clip, ") and done.stderr.count("\n") == 1
    assert done.stdout.startswith(f"{out}: 20 x 24, encoder some/clip")
    assert any("model.safetensors" in a for a in asked) and not any("tf_model" in a for a in asked)
    (weights,) = (tmp_path / "hf").rglob("snapshots/*/model.safetensors")
    code = "from lground.text.hub import model_folder; print(model_folder('some/clip'))"

    def find():
        asked.clear()
        environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf")}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == str(weights.parent), done.stderr

    find()
    assert asked == []  # what is here needs no network
    weights.unlink()
    find()
    assert weights.exists()  # a download cut short is completed


def test_a_model_the_hub_does_not_have(hub, tmp_path):
    address, _ = hub
    done = lground("anchors", tmp_path / "a.safetensors", "--encoder", "no/such", HF_ENDPOINT=address)
    assert done.returncode == 2 and "huggingface.co has no such model" in done.stderr
