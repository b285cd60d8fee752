# ruff: noqa: PLC0415 - these libraries are in vLLM's environment only
"""A Llama small enough to serve from a fraction of a core: `ENV/bin/python tiny_model.py FOLDER`.

0.8 million random weights, two layers, and a byte-level BPE tokenizer of 2,048 tokens, trained on the standard library;
everything comes from the machine itself. Random weights are enough: what is tested is where tokens and KV blocks go.
They are drawn wide and input and output embeddings are not tied: with the usual initialisation such a model repeats its
last token for ever, and then equal answers would prove nothing about the KV cache that they were computed from.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

HIDDEN, LAYERS, HEAD, VOCABULARY, LONGEST = 128, 2, 32, 2048, 16384


def make_tokenizer(folder: Path) -> None:
    """Train and save the tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:120]
    tokenizer.train([str(text) for text in texts], trainer)
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LONGEST, **special)
    fast.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
    fast.save_pretrained(folder)


def make_model(folder: Path) -> None:
    """Draw and save the weights; equal ones every time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    heads = HIDDEN // HEAD
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=HEAD,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=False,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        dtype="bfloat16",
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    print(f"{sum(weights.numel() for weights in model.parameters()):,} parameters")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    make_tokenizer(target)
    make_model(target)
