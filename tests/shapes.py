"""Shapes that tests check recipes against."""

from compressors.step import ModelShape

SMALL = ModelShape(
    architecture="Exaone4ForCausalLM",
    layers=4,
    hidden=128,
    ffn=192,
    heads=2,
    kv_heads=1,
    head_dim=64,
    vocab=512,
    tied=True,
    max_positions=1024,
)
EXAONE = ModelShape(  # EXAONE-4.0-1.2B
    architecture="Exaone4ForCausalLM",
    layers=30,
    hidden=2048,
    ffn=4096,
    heads=32,
    kv_heads=8,
    head_dim=64,
    vocab=102400,
    tied=True,
    max_positions=65536,
)
