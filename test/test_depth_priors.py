"""Depth priors: metres of the right size from frozen models, whichever kind of file their weights come in."""

import io

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config  # noqa: E402

from sgrocc.inference.manifest import OPSET  # noqa: E402
from sgrocc.model.anchors import AnchorConfig  # noqa: E402
from sgrocc.model.depth_priors import CHECKPOINTS, DepthAnythingV2, OwnDepth, filled, load_prior  # noqa: E402
from sgrocc.model.spatial_expert import ExpertConfig, SpatialExpert  # noqa: E402

WIDTH, HEIGHT = 64, 48
INTRINSICS = torch.tensor([[53.0, 53.0, 31.5, 23.5]])


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_model(kind="metric", max_depth=20):
    """Four blocks and two heads of random numbers, large enough that each of them matters to the depth."""
    config = DepthAnythingConfig(
        backbone_config=Dinov2Config(
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=2,
            mlp_ratio=4,
            image_size=56,
            patch_size=14,
            out_indices=[1, 2, 3, 4],
            reshape_hidden_states=False,
        ),
        reassemble_hidden_size=128,
        neck_hidden_sizes=[8, 12, 16, 20],
        fusion_hidden_size=16,
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=max_depth,
    )
    model = DepthAnythingForDepthEstimation(config)
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            weight = name.endswith(".weight") and parameter.ndim > 1
            deviation = parameter[0].numel() ** -0.5 if weight else 0.2
            parameter.copy_(deviation * torch.randn(parameter.shape, generator=random) + ("norm" in name))
    return model.eval()


def inputs(height=HEIGHT, width=WIDTH, batch=1):
    random = torch.Generator().manual_seed(height + width)
    image = 2.0 * torch.rand(batch, 3, height, width, generator=random) - 1.0
    return image, INTRINSICS.expand(batch, 4), torch.full((batch, 1, height, width), 2.0)


def authors_weights(model):
    """The state dict that the authors' repository would have written of the same network."""
    whole = {
        "backbone.embeddings.cls_token": "pretrained.cls_token",
        "backbone.embeddings.mask_token": "pretrained.mask_token",
        "backbone.embeddings.position_embeddings": "pretrained.pos_embed",
    }
    starts = {
        "backbone.embeddings.patch_embeddings.projection": "pretrained.patch_embed.proj",
        "backbone.layernorm": "pretrained.norm",
        "head.conv1": "depth_head.scratch.output_conv1",
        "head.conv2": "depth_head.scratch.output_conv2.0",
        "head.conv3": "depth_head.scratch.output_conv2.2",
    }
    for n in range(4):
        starts[f"neck.convs.{n}"] = f"depth_head.scratch.layer{n + 1}_rn"
        starts[f"neck.reassemble_stage.layers.{n}.projection"] = f"depth_head.projects.{n}"
        starts[f"neck.reassemble_stage.layers.{n}.resize"] = f"depth_head.resize_layers.{n}"
        fusion, refinenet = f"neck.fusion_stage.layers.{n}", f"depth_head.scratch.refinenet{4 - n}"
        starts[f"{fusion}.projection"] = f"{refinenet}.out_conv"
        for unit in "12":
            for convolution in "12":
                theirs = f"{refinenet}.resConfUnit{unit}.conv{convolution}"
                starts[f"{fusion}.residual_layer{unit}.convolution{convolution}"] = theirs
        ours, theirs = f"backbone.encoder.layer.{n}", f"pretrained.blocks.{n}"
        starts[f"{ours}.attention.o_proj"] = f"{theirs}.attn.proj"
        for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
            starts[f"{ours}.{part}"] = f"{theirs}.{part}"
        for scale in "12":
            whole[f"{ours}.layer_scale{scale}.lambda1"] = f"{theirs}.ls{scale}.gamma"
    state, weights = model.state_dict(), {}
    for name, value in state.items():
        if name in whole:
            weights[whole[name]] = value
        elif ".q_proj." in name:
            parts = [state[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            block, kind = name.split(".")[3], name.split(".")[-1]
            weights[f"pretrained.blocks.{block}.attn.qkv.{kind}"] = torch.cat(parts)
        elif ".k_proj." not in name and ".v_proj." not in name:
            start, kind = name.rsplit(".", 1)
            weights[f"{starts[start]}.{kind}"] = value
    return weights


@pytest.mark.parametrize("height, width, batch", [(48, 64, 2), (42, 56, 1), (30, 70, 1)])
def test_depth_has_the_size_of_the_own_depth_and_is_positive(height, width, batch):
    depth = DepthAnythingV2(small_model())(*inputs(height, width, batch))
    assert depth.shape == (batch, 1, height, width)
    assert depth.min() > 0 and depth.std() > 0.05


def test_depth_stays_below_the_models_maximum():
    near, far = (DepthAnythingV2(small_model(max_depth=m))(*inputs()) for m in (5, 20))
    assert 1 < near.max() < 5 and 4 < far.max() < 20
    torch.testing.assert_close(4 * near, far)


def test_depth_is_above_zero_where_the_sigmoid_is_not():
    model = small_model()
    torch.nn.init.constant_(model.head.conv3.bias, -1e4)
    assert DepthAnythingV2(model)(*inputs()).min() > 0


@pytest.mark.parametrize("height, size", [(None, (252, 336)), (518, (518, 686)), (250, (252, 336)), (1, (14, 14))])
def test_the_model_sees_whole_patches_in_imagenets_normalisation(height, size):
    model, seen = small_model(), []
    model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True)
    colour = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1)
    image = ((colour - 0.5) / 0.5).expand(1, 3, 240, 320)
    depth = DepthAnythingV2(model, height)(image, INTRINSICS, torch.ones(1, 1, 240, 320))
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert seen[0].shape == (1, 3, *size) and depth.shape == (1, 1, 240, 320)
    torch.testing.assert_close(seen[0], ((colour - mean) / std).expand_as(seen[0]))


def test_the_prior_is_frozen_and_stays_in_evaluation():
    expert = SpatialExpert(small_config(), imagenet=False, prior=DepthAnythingV2(small_model()))
    expert.train()
    assert expert.training and not any(module.training for module in expert.prior.modules())
    assert not any(parameter.requires_grad for parameter in expert.prior.parameters())
    image, *rest = inputs()
    assert not expert.prior(image.requires_grad_(), *rest).requires_grad


def small_config():
    return ExpertConfig(width=WIDTH, height=HEIGHT, channels=16, blocks=1, anchors=AnchorConfig(stride=16))


def test_swapping_the_prior_changes_depth_and_leaves_the_features():
    torch.manual_seed(2)
    expert = SpatialExpert(small_config(), imagenet=False).eval()
    image, intrinsics, _ = inputs()
    with torch.no_grad():
        own = expert(image, intrinsics)
        expert.prior = DepthAnythingV2(small_model())
        other = expert(image, intrinsics)
    assert torch.equal(own.class_logits, other.class_logits) and torch.equal(own.own_depth, other.own_depth)
    assert torch.equal(other.depth, expert.prior(image, intrinsics, own.own_depth))
    assert (own.depth - other.depth).abs().mean() > 0.1
    assert (own.gaussians.means - other.gaussians.means).abs().mean() > 0.1


@pytest.mark.parametrize("key, prefix", [(None, ""), ("model", ""), ("model", "module."), (None, "module.")])
def test_a_checkpoint_of_the_authors_repository_gives_the_same_depth(tmp_path, key, prefix):
    model = small_model()
    weights = {prefix + name: value for name, value in authors_weights(model).items()}
    assert len(weights) == len(model.state_dict()) - 2 * 2 * 4  # q, k and v of four blocks are one there
    path = tmp_path / "finetuned.pth"
    torch.save({key: weights, "epoch": 3} if key else weights, path)
    loaded = load_prior(str(path))
    assert loaded.model.config.max_depth == 20
    expected = DepthAnythingV2(model)(*inputs())
    torch.testing.assert_close(loaded(*inputs()), expected, atol=1e-5, rtol=0)


def test_a_checkpoint_may_lack_what_nothing_uses(tmp_path):
    model = small_model()
    weights = authors_weights(model)
    unused = [name for name in weights if "mask_token" in name or "refinenet4.resConfUnit1" in name]
    assert len(unused) == 5
    path = tmp_path / "lean.pth"
    torch.save({name: value for name, value in weights.items() if name not in unused}, path)
    assert torch.equal(load_prior(str(path))(*inputs()), DepthAnythingV2(model)(*inputs()))


def test_a_folder_of_transformers_gives_the_same_depth(tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path)
    loaded = load_prior(str(tmp_path), height=70)
    assert loaded.height == 70
    assert torch.equal(loaded(*inputs()), DepthAnythingV2(model, 70)(*inputs()))


def test_own_is_the_experts_own_depth():
    prior = load_prior("own")
    assert isinstance(prior, OwnDepth)
    image, intrinsics, own = inputs()
    assert prior(image, intrinsics, own) is own


def test_every_known_checkpoint_has_a_licence():
    assert all(CHECKPOINTS.values())
    assert all(name.endswith(("-hf", ".pth")) for name in CHECKPOINTS)


def one_sentence(error, *words):
    text = str(error.value)
    assert "\n" not in text and ". " not in text and ":" in text
    for word in words:
        assert word in text


def test_missing_weights_are_named_with_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError) as error:
        load_prior(str(tmp_path / "none.pth"))
    one_sentence(error, "no checkpoint", "none.pth", "fetch")
    for spec in ("da2", str(tmp_path / "none"), "a/b/c", ""):
        with pytest.raises(FileNotFoundError) as error:
            load_prior(spec)
        one_sentence(error, "no depth prior", "Metric-Indoor-Small-hf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError) as error:
        load_prior(str(tmp_path / "empty"))
    one_sentence(error, "no Depth-Anything-V2 weights", "empty", "check the name")

    def offline(*_, **__):
        raise OSError("we could not connect\nto the hub")

    monkeypatch.setattr(DepthAnythingForDepthEstimation, "from_pretrained", offline)
    with pytest.raises(FileNotFoundError) as error:
        load_prior("depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf")
    one_sentence(error, "no Depth-Anything-V2 weights", "Indoor-Small-hf", "online")


def test_a_folder_without_all_weights_is_refused(tmp_path):
    small_model().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    del weights["head.conv2.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ValueError) as error:
        load_prior(str(tmp_path))
    one_sentence(error, "lacks 1 weights", "head.conv2.weight", "fetch it again")
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError) as error:
        load_prior(str(tmp_path))
    one_sentence(error, "does not hold", "fetch it again")


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda w: w.pop("depth_head.scratch.refinenet2.out_conv.bias"), ("lacks 1 weights", "fusion_stage.layers.2")),
        (lambda w: w.pop("pretrained.pos_embed"), ("not a Depth-Anything-V2", "take a Small, Base or Large")),
        (lambda w: w.update(extra=torch.zeros(1)), ("no Depth-Anything-V2 has", "extra")),
        (lambda w: w.update({"pretrained.norm.bias": torch.zeros(3)}), ("not a Depth-Anything-V2",)),
        (lambda w: w.update(epoch=4), ("no state dict", "save")),
        (lambda w: w.clear(), ("not a Depth-Anything-V2",)),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(tmp_path, change, words):
    weights = authors_weights(small_model())
    change(weights)
    path = tmp_path / "other.pth"
    torch.save(weights, path)
    with pytest.raises(ValueError) as error:
        load_prior(str(path))
    one_sentence(error, "other.pth", *words)


def test_a_broken_checkpoint_is_refused(tmp_path):
    path = tmp_path / "broken.pth"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError) as error:
        load_prior(str(path))
    one_sentence(error, "broken.pth cannot be read", "fetch it again")


def test_depth_without_a_scale_is_refused(tmp_path):
    with pytest.raises(ValueError) as error:
        DepthAnythingV2(small_model("relative", 1))
    one_sentence(error, "without a scale", "Metric-Indoor")
    for name in ("depth_anything_v2_vits.pth", "depth_anything_v2_metric_vkitti_vitb.pth"):
        torch.save(authors_weights(small_model()), tmp_path / name)
        with pytest.raises(ValueError) as error:
            load_prior(str(tmp_path / name))
        one_sentence(error, "metres indoors", "hypersim")
    with pytest.raises(ValueError) as error:
        DepthAnythingV2(small_model(), height=0)
    one_sentence(error, "0 pixels")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_exported_prior_is_the_same(tmp_path):
    prior = DepthAnythingV2(small_model())
    values = inputs()
    names = ["image", "intrinsics", "own_depth"]
    buffer = io.BytesIO()
    torch.onnx.export(
        prior,
        values,
        buffer,
        input_names=names,
        output_names=["depth"],
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET
    assert not {"IsNaN", "If", "Loop", "Scan", "ScatterND", "NonZero"} & {node.op_type for node in model.graph.node}
    shape = model.graph.output[0].type.tensor_type.shape
    assert [dimension.dim_value for dimension in shape.dim] == [1, 1, HEIGHT, WIDTH]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    feed = {name: value.numpy() for name, value in zip(names, values) if name in wanted}
    (depth,) = session.run(["depth"], feed)
    np.testing.assert_allclose(depth, prior(*values).numpy(), atol=1e-4, rtol=0)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    share=st.floats(0.0, 1.0),
    scale=st.floats(0.3, 3.0),
)
def test_given_depth_stays_and_holes_are_scaled_to_it(seed, share, scale):
    random = torch.Generator().manual_seed(seed)
    own = 0.5 + 5 * torch.rand(2, 1, 12, 16, generator=random)
    known = torch.rand(own.shape, generator=random) < share
    measured = torch.where(known, scale * own, torch.zeros_like(own))
    depth = filled(measured, own)
    assert torch.equal(depth[known], measured[known]) and (depth > 0).all()
    # One pixel of the ratio 1 counts along, so that no given depth means no change.
    count = known.sum(dim=(1, 2, 3), keepdim=True)
    ratio = scale ** (count / (count + 1.0))
    torch.testing.assert_close(depth[~known], (own * ratio)[~known], rtol=1e-4, atol=0)


def test_nothing_given_is_the_own_depth_exactly():
    own = 0.2 + torch.rand(2, 1, 12, 16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(filled(torch.zeros_like(own), own), own)
