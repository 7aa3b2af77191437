"""The embedded model as converted: its weights are the package's, and it answers and stops."""

import pytest

from treepo.errors import ConfigError
from treepo.local.embedded import find_weights, prepare


@pytest.fixture(scope="module")
def weights():
    try:
        return find_weights()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def folder(weights):
    return prepare()


@pytest.fixture(scope="module")
def packaged(weights):
    """The package's tensors by name; reading their index takes seconds."""
    from gguf import GGUFReader

    return {tensor.name: tensor for tensor in GGUFReader(weights).tensors}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.29.mlp.down_proj.weight", "blk.29.ffn_down.weight"),
        ("model.norm.weight", "output_norm.weight"),
    ],
)
def test_the_weights_are_those_of_the_package(folder, packaged, name, source):
    import numpy as np
    from gguf.quants import dequantize
    from safetensors import safe_open

    expected = dequantize(packaged[source].data, packaged[source].tensor_type)
    with safe_open(folder / "model.safetensors", framework="np") as stored:
        found = stored.get_tensor(name)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.reshape(found.shape))


def test_it_answers_a_chat_and_ends_its_turn(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    assert model.config.eos_token_id == tokenizer.eos_token_id
    chat = [{"role": "user", "content": "What is the capital of France? Answer briefly."}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**prompt, do_sample=False, max_new_tokens=24)[0]
    answer = answer[prompt["input_ids"].shape[1] :].tolist()
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
