"""Width pruning against the whole model with the same parts masked, and importance against a plain rewrite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import VOCAB, make_tokenizer

from compressors import checkpoint
from compressors.build import build
from compressors.data import tokenize
from compressors.shape import check_recipe, read_shape
from compressors.step import Conversations, EngineTraits, Infeasible, Step, StepContext
from compressors.steps import parse_step
from compressors.store import Store
from compressors.width import PruneFFN, PruneHeads, PruneHidden
from compressors.width_surgery import ffn_importance, group_importance, hidden_importance, hidden_norms
from tests.shapes import EXAONE

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

KINDS = ["exaone4", "llama", "qwen2", "qwen3"]
ROWS = [tuple(range(10, 30)), tuple(range(40, 47))]
FFN, HEADS, HIDDEN = PruneFFN(width=128), PruneHeads(kv_heads=2), PruneHidden(hidden=128)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """2 layers, hidden 192, FFN 256, 8 heads of 24 sharing 4 KV heads; norm weights and biases are not all alike."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("wide")
    tokens = root / "tokenizer"
    tokens.mkdir()
    make_tokenizer(tokens)
    folders = {}
    for kind in KINDS:
        fields: dict[str, Any] = {"attention_bias": True, "mlp_bias": True} if kind == "llama" else {}
        if kind == "exaone4":
            fields |= {"layer_types": ["full_attention"] * 2, "sliding_window": None}
        config = AutoConfig.for_model(
            kind,
            vocab_size=VOCAB,
            hidden_size=192,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=24,
            max_position_embeddings=512,
            tie_word_embeddings=kind in ("exaone4", "qwen2"),
            initializer_range=0.1,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            **fields,
        )
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_config(config)
        for name, weight in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                weight.data = ("norm" in name) + 0.3 * torch.randn_like(weight)
        folder = root / kind
        model.to(torch.bfloat16).save_pretrained(str(folder))
        checkpoint.copy_companions(tokens, folder)
        folders[kind] = folder
    return folders


def logits(model: PreTrainedModel) -> torch.Tensor:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.arange(6, 60)[None], use_cache=False).logits


def prune(step: Step, folder: Path, data: Conversations) -> tuple[PreTrainedModel, PreTrainedModel, dict[str, Any]]:
    """The whole model and the pruned one, both in fp32, and the notes."""
    whole, _ = checkpoint.load(folder, "cpu")
    model, tokenizer = checkpoint.load(folder, "cpu")
    context = StepContext(base=folder, data=data)
    return whole.float(), step.apply(model.float(), tokenizer, context), context.notes


def rows_of(matrix: torch.Tensor, picked: torch.Tensor) -> list[int]:
    """Which rows of `matrix` those of `picked` are, in order."""
    return [next(i for i, row in enumerate(matrix) if row.equal(wanted)) for wanted in picked]


@pytest.mark.parametrize("kind", KINDS)
def test_pruned_ffn_is_the_masked_one(wide: dict[str, Path], kind: str, data: Conversations) -> None:
    import torch

    whole, small, _ = prune(FFN, wide[kind], data)
    importance = None
    for index, (one, other) in enumerate(zip(whole.model.layers, small.model.layers, strict=True)):
        kept = rows_of(one.mlp.gate_proj.weight, other.mlp.gate_proj.weight)
        importance = importance or ffn_importance(whole, [tokenize_row(wide[kind], row) for row in data.rows])
        assert sorted(importance[index].argsort(descending=True)[:128].tolist()) == kept
        mask = torch.zeros(256).index_fill_(0, torch.tensor(kept), 1.0)
        one.mlp.down_proj.register_forward_pre_hook(lambda _, args, mask=mask: (args[0] * mask,))
    assert small.config.intermediate_size == 128
    torch.testing.assert_close(logits(small), logits(whole), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_pruned_heads_are_the_masked_ones(wide: dict[str, Path], kind: str, data: Conversations) -> None:
    import torch

    whole, small, notes = prune(HEADS, wide[kind], data)
    for layer, groups in zip(whole.model.layers, notes["kept_groups"], strict=True):
        mask = torch.zeros(4, 48).index_fill_(0, torch.tensor(groups), 1.0).flatten()
        layer.self_attn.o_proj.register_forward_pre_hook(lambda _, args, mask=mask: (args[0] * mask,))
    config = small.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (4, 2, 24)
    torch.testing.assert_close(logits(small), logits(whole), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_pruned_hidden_is_the_masked_one(wide: dict[str, Path], kind: str, data: Conversations) -> None:
    import torch

    whole, small, _ = prune(HIDDEN, wide[kind], data)
    kept = rows_of(whole.model.embed_tokens.weight.T, small.model.embed_tokens.weight.T)
    mask = torch.zeros(192).index_fill_(0, torch.tensor(kept), 1.0)
    writers = [writer for layer in whole.model.layers for writer in (layer.self_attn.o_proj, layer.mlp.down_proj)]
    for module in (whole.model.embed_tokens, *writers):
        module.register_forward_hook(lambda _, __, output: output * mask)
    assert (small.config.hidden_size, small.config.head_dim) == (128, 24)
    assert (small.lm_head.weight is small.model.embed_tokens.weight) == (kind in ("exaone4", "qwen2"))
    torch.testing.assert_close(logits(small), logits(whole), rtol=0.02, atol=0.02)  # eps is worth less now
    for norm in hidden_norms(small):
        norm.variance_epsilon *= 192 / 128  # what the config cannot say, as q_norm and k_norm read the same number
    torch.testing.assert_close(logits(small), logits(whole), rtol=1e-4, atol=1e-4)


def tokenize_row(folder: Path, row: Any) -> tuple[int, ...]:
    from transformers import AutoTokenizer

    return tokenize(AutoTokenizer.from_pretrained(folder), row, 2048).ids


@pytest.mark.parametrize("kind", KINDS)
def test_importance_is_what_its_formula_says(wide: dict[str, Path], kind: str) -> None:
    import torch

    model, _ = checkpoint.load(wide[kind], "cpu")
    model.float()
    seen: dict[str, list[torch.Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(
                lambda _, args, name=name: seen.setdefault(name, []).append(args[0][0].double())
            )
    with torch.no_grad():
        for row in ROWS:  # one at a time: no padding to get wrong
            model(input_ids=torch.tensor([row]))
    inputs = {name: torch.cat(parts) for name, parts in seen.items()}
    layer = model.model.layers[1]
    down = layer.mlp.down_proj.weight.double()
    expected = inputs["model.layers.1.mlp.down_proj"].abs().mean(0) * (down**2).sum(0).sqrt()
    torch.testing.assert_close(ffn_importance(model, ROWS)[1], expected, rtol=1e-4, atol=1e-6)

    output, entering = layer.self_attn.o_proj.weight.double(), inputs["model.layers.1.self_attn.o_proj"]
    for group in range(4):
        alone = torch.zeros_like(entering)
        alone[:, 48 * group : 48 * (group + 1)] = entering[:, 48 * group : 48 * (group + 1)]
        length = ((alone @ output.T) ** 2).sum(1).sqrt().mean().detach()
        assert float(group_importance(model, ROWS)[1][group]) == pytest.approx(float(length), rel=1e-4)

    readers = [f"model.layers.{i}.{name}" for i in (0, 1) for name in ("self_attn.q_proj", "mlp.gate_proj")]
    figures = [inputs[name].abs().mean(0) for name in (*readers, "lm_head")]
    expected = sum(figure / figure.mean() for figure in figures)
    torch.testing.assert_close(hidden_importance(model, ROWS), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_all_widths_survive_saving(wide: dict[str, Path], kind: str, tmp_path: Path, data: Conversations) -> None:
    import torch

    built = build([FFN, HEADS, HIDDEN], wide[kind], Store(tmp_path), data)
    config = json.loads((built.artifact.folder / "config.json").read_text())
    assert (config["head_dim"], config["num_key_value_heads"], config["hidden_size"]) == (24, 2, 128)
    model, tokenizer = checkpoint.load(wide[kind], "cpu")
    for step in (FFN, HEADS, HIDDEN):
        model = step.apply(model, tokenizer, StepContext(base=wide[kind], data=data))
    again, _ = checkpoint.load(built.artifact.folder, "cpu")
    assert torch.equal(logits(again), logits(model))


def test_reshape_is_what_is_written(wide: dict[str, Path], tmp_path: Path, data: Conversations) -> None:
    steps = [FFN, HEADS, HIDDEN]
    shape = read_shape(wide["llama"])
    for step in steps:
        shape = step.reshape(shape)
    written = read_shape(build(steps, wide["llama"], Store(tmp_path), data).artifact.folder)
    assert shape == written.model_copy(update={"damaged": True, "narrowed": True})


QWEN2 = EXAONE.model_copy(update={"architecture": "Qwen2ForCausalLM"})


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"step": "prune_ffn", "width": 4096}, "prune_ffn width 4096 is not below the model's intermediate_size 4096"),
        ({"step": "prune_ffn", "width": 3000}, "prune_ffn width 3000 is no multiple of 128"),
        ({"step": "prune_heads", "kv_heads": 8}, "prune_heads kv_heads 8 is not below the model's 8"),
        (
            {"step": "prune_hidden", "hidden": 2048},
            "prune_hidden hidden 2048 is not below the model's hidden_size 2048",
        ),
        ({"step": "prune_hidden", "hidden": 1984}, "prune_hidden hidden 1984 is no multiple of 128"),
    ],
)
def test_refusals(fields: dict[str, Any], reason: str, engine: EngineTraits) -> None:
    with pytest.raises(Infeasible, match=reason):
        check_recipe([parse_step(fields)], EXAONE, engine)


def test_width_after_two_of_four_is_refused(engine: EngineTraits) -> None:
    sparse = EXAONE.model_copy(update={"sparse": "2:4"})
    for step in (PruneFFN(width=2048), PruneHidden(hidden=1024), PruneHeads(kv_heads=4)):
        with pytest.raises(Infeasible, match=f"{step.step} breaks the 2:4 pattern"):
            check_recipe([step], sparse, engine)


def test_qwen2_cannot_state_head_dim_but_both_steps_together_can(engine: EngineTraits) -> None:
    heads, hidden = PruneHeads(kv_heads=4), PruneHidden(hidden=1024)
    for steps in ([heads], [hidden]):
        with pytest.raises(Infeasible, match=f"{steps[0].step}: vLLM takes the head_dim of a Qwen2ForCausalLM"):
            check_recipe(steps, QWEN2, engine)
    assert check_recipe([heads, hidden], QWEN2, engine).hidden == 16 * 64
    assert check_recipe([heads], EXAONE, engine).heads == 16


def test_llama_heads_must_divide_the_hidden_size(engine: EngineTraits) -> None:
    llama = EXAONE.model_copy(update={"architecture": "LlamaForCausalLM"})
    with pytest.raises(Infeasible, match=r"prune_heads kv_heads 6: .* 24 heads do not divide 2048"):
        check_recipe([PruneHeads(kv_heads=6)], llama, engine)
    with pytest.raises(Infeasible, match=r"prune_hidden hidden 1408: .* 24 heads do not divide 1408"):
        check_recipe([PruneHidden(hidden=1536), PruneHeads(kv_heads=6), PruneHidden(hidden=1408)], llama, engine)
    check_recipe([PruneHidden(hidden=1536), PruneHeads(kv_heads=6)], llama, engine)


def test_w4a16_sees_the_new_widths(engine: EngineTraits) -> None:
    small = EXAONE.model_copy(update={"hidden": 512, "ffn": 1024, "heads": 8})
    w4a16 = parse_step({"step": "quantize", "scheme": "W4A16"})
    check_recipe([PruneFFN(width=896), w4a16], small, engine)
    with pytest.raises(Infeasible, match="down_proj has 960 inputs"):
        check_recipe([PruneFFN(width=960), w4a16], small, engine)
