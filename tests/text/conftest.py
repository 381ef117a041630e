"""Tiny text encoders with random weights, saved as their libraries save real ones."""

import json

import pytest
import torch

WORDS = "<pad> <bos> <unk> a chair office table lamp red in room the <eos>".split()


def save_tokenizer(folder, length=16):
    """Words to numbers, <bos> before and <eos> after, as a fast tokenizer file."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 12)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=length,
    ).save_pretrained(folder)


SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = SIZES | {"vocab_size": 13, "max_position_embeddings": 16}
TEXT |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 12}  # CLIP reads its vector at the end token
VISION = SIZES | {"image_size": 32, "patch_size": 16}


def save(model, folder):
    torch.manual_seed(7)
    for p in model.parameters():  # initial weights are so small that all texts look alike
        torch.nn.init.normal_(p, std=0.2)
    model.eval().save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24)
    config.text_config.projection_dim = 24
    return save(CLIPModel(config), tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def tiny_siglip(tmp_path_factory):
    from transformers import SiglipConfig, SiglipModel

    return save(
        SiglipModel(SiglipConfig(text_config=TEXT, vision_config=VISION)), tmp_path_factory.mktemp("siglip")
    )


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """A plain language model, without sentence-transformers' files."""
    from transformers import BertConfig, BertModel

    return save(BertModel(BertConfig(**TEXT)), tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def tiny_sentence_transformer(tiny_bert, tmp_path_factory):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    folder = tmp_path_factory.mktemp("sentence")
    words = modules.Transformer(str(tiny_bert), max_seq_length=12)
    pooling = modules.Pooling(words.get_embedding_dimension(), pooling_mode="cls")
    SentenceTransformer(modules=[words, pooling], device="cpu").save(str(folder))
    assert json.loads((folder / "modules.json").read_text())
    return folder
