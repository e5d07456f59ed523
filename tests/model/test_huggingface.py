"""config.json files of each family against the catalogue, and every way they can be wrong."""

import dataclasses
import json

import pytest
from folders import DATA

from llmsim.errors import ModelError
from llmsim.model.config_families import READERS
from llmsim.model.huggingface import architecture_from_config, load_config
from llmsim.model.parameters import active_parameters, parameters
from llmsim.model.published import model

FOLDER = DATA / "hf"
# What a config.json does not decide the same way: `bias` is resolved per linear layer, dropout is a training choice.
NOT_COMPARED = {"name", "max_positions", "bias", "dropout"}
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def fields(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_same_model_as_the_catalogue(name):
    arch, known = load_config(FOLDER / f"{name}.json"), model(name).architecture
    assert arch.name == name
    assert parameters(arch) == parameters(known)
    assert active_parameters(arch) == active_parameters(known)
    for field in dataclasses.fields(arch):
        if field.name not in NOT_COMPARED:
            assert getattr(arch, field.name) == getattr(known, field.name), field.name
    assert arch.layer_windows() == known.layer_windows()
    assert arch.layer_kinds() == known.layer_kinds()


def test_every_family_of_the_files_has_a_reader():
    assert {fields(name)["model_type"] for name in NAMES} - {"llama4"} <= set(READERS)


def test_a_directory_gives_its_config(tmp_path):
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(fields("llama2-7b")))
    assert load_config(folder).name == "my-model"
    assert load_config(str(folder / "config.json")) == load_config(folder)


REQUIRED = {
    "llama3-8b": [
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "vocab_size",
    ],
    "mistral-7b": ["num_key_value_heads"],
    "mixtral-8x7b": ["num_local_experts", "num_experts_per_tok"],
    "qwen3-8b": ["head_dim", "num_hidden_layers", "intermediate_size"],
    "qwen3-30b-a3b": ["num_hidden_layers", "num_experts", "moe_intermediate_size"],
    "gpt2": ["n_layer", "n_embd", "n_head", "vocab_size"],
    "gpt-neox-20b": ["intermediate_size"],
    "gemma2-2b": ["head_dim", "sliding_window"],
    "deepseek-v3": [
        "q_lora_rank",
        "kv_lora_rank",
        "n_routed_experts",
        "n_shared_experts",
        "first_k_dense_replace",
    ],
    "dbrx": ["d_model", "attn_config", "ffn_config"],
    "llama4-scout": [],
    "opt-6.7b": ["ffn_dim", "max_position_embeddings"],
    "falcon-40b": ["num_kv_heads", "bias"],
}


@pytest.mark.parametrize("name, field", [(name, field) for name, needed in REQUIRED.items() for field in needed])
def test_a_missing_field_is_named_and_never_filled(name, field):
    config = fields(name)
    del config[field]
    with pytest.raises(ModelError) as error:
        architecture_from_config(config, name, "dir/config.json")
    text = str(error.value)
    assert text.startswith("dir/config.json: ") and field in text and config["model_type"] in text and "\n" not in text


@pytest.mark.parametrize(
    "name, change, message",
    [
        (
            "llama3-8b",
            {"model_type": "lama"},
            "model_type 'lama' is not supported; expected one of arcee, bloom, cohere",
        ),
        ("llama3-8b", {"model_type": "lama"}, "did you mean 'llama'"),
        ("llama3-8b", {"model_type": None}, "has no model_type"),
        ("llama3-8b", {"tie_word_embeddings": "no"}, "tie_word_embeddings = 'no' is not supported; expected true"),
        ("llama3-8b", {"model_type": ["llama"]}, "has no model_type"),
        ("llama3-8b", {"num_attention_heads": 24, "head_dim": None}, "heads: 24 does not divide hidden 4096"),
        ("llama3-8b", {"num_key_value_heads": 5}, "kv_heads: 5 does not divide heads 32"),
        ("llama3-8b", {"hidden_size": "4096"}, "hidden: '4096' is not a whole number"),
        ("qwen2-7b", {"use_sliding_window": True}, "use_sliding_window = True is not supported"),
        ("qwen3-30b-a3b", {"mlp_only_layers": [3, 7]}, "mlp_only_layers = [3, 7] is not supported"),
        ("qwen3-30b-a3b", {"mlp_only_layers": 3}, "mlp_only_layers = 3 is not supported; expected a list"),
        ("gpt-oss-20b", {"layer_types": ["full_attention", "sliding_attention"] * 12}, "is not supported"),
        ("dbrx", {"attn_config": 3}, "attn_config = 3 is not an object"),
        (
            "opt-6.7b",
            {"word_embed_proj_dim": 512},
            "word_embed_proj_dim = 512 is not supported; expected hidden_size (4096)",
        ),
        (
            "opt-6.7b",
            {"max_position_embeddings": "2048"},
            "max_position_embeddings = '2048' is not a whole number",
        ),
    ],
)
def test_mistakes_are_one_sentence(name, change, message):
    with pytest.raises(ModelError) as error:
        architecture_from_config({**fields(name), **change}, name, "here/config.json")
    text = str(error.value)
    assert text.startswith("here/config.json: ") and message in text and "\n" not in text


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(ModelError, match=r"no file .*nothing\.json.*config\.json"):
        load_config(tmp_path / "nothing.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{oops")
    with pytest.raises(ModelError, match=r"broken\.json:1: this is not JSON"):
        load_config(broken)
    broken.write_text("[1]")
    with pytest.raises(ModelError, match="holds no JSON object"):
        load_config(broken)
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="this is not UTF-8 text"):
        load_config(broken)


def test_traps():
    # Heads that do not fill the hidden width, biases no field mentions, positions with an offset.
    assert architecture_from_config({**fields("qwen3-8b"), "hidden_size": 5120}, "x").head_dim == 128
    assert architecture_from_config(fields("qwen2-7b"), "x").qkv_bias
    assert not architecture_from_config(fields("qwen2-7b"), "x").output_bias
    assert architecture_from_config(fields("opt-6.7b"), "x").max_positions == 2050
    # Newer files list the layers' attention; older ones of Gemma 2 do not.
    listed = {**fields("gemma2-2b"), "layer_types": ["sliding_attention", "full_attention"] * 13}
    assert architecture_from_config(listed, "x") == architecture_from_config(fields("gemma2-2b"), "x")
    with_bias = architecture_from_config({**fields("llama3-8b"), "attention_bias": True}, "x")
    assert with_bias.qkv_bias and with_bias.output_bias and not with_bias.mlp_bias
