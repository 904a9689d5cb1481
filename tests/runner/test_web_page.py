"""The JavaScript of examples/web gives the labels of the runner; it is run by node, without a browser."""

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest
from json_edits import edit_json

from monai_unetpp.data.formats.label_table import make_labels
from monai_unetpp.files import hash_file
from monai_unetpp.runner import Pipeline, Segmenter, segmenter
from monai_unetpp.runner.pipeline import PIPELINE_FILE
from monai_unetpp.runner.segmenter import STEPS
from monai_unetpp.runner.volume import read_volume

_NODE = shutil.which("node")
_RUNTIME = Path(__file__).parents[2] / "examples/web/node_modules/onnxruntime-web/dist/ort.node.min.mjs"

pytestmark = pytest.mark.skipif(_NODE is None, reason="needs node")

_OBLIQUE = [[0, -1.1, 0.1, 3], [1.0, 0, 0, 5], [0, -0.1, 1.1, -4], [0, 0, 0, 1]]
_AT_45_DEGREES = [[0.7071068, 0.5, 0.5, 3], [0, 0.7071068, -0.7071068, 5], [-0.7071068, 0.5, 0.5, 8], [0, 0, 0, 1]]
_SHEARED = [[-1.3, 0.2, 0, 30], [0, 1.1, 0.2, -5], [0, 0, 0.9, 8], [0, 0, 0, 1]]
_BRAIN = [
    {"step": "orient", "axcodes": "RAS"},
    {"step": "level_surround"},
    {"step": "spacing", "pixdim": [1.0, 1.2, 0.9], "padding": "border", "diagonal": False},
    {"step": "crop_background", "margin": 3, "allow_smaller": False},
    {"step": "clip_percentiles", "lower": 0.5, "upper": 99.5, "channel_wise": False},
    {"step": "standardize", "channel_wise": False, "inside_surround": False},
]
_ABOVE_MEAN = {"step": "crop_above_mean", "part": 0.25, "margin": 2, "allow_smaller": False}
_SKEWED = [
    {"step": "spacing", "pixdim": [1.0], "padding": "zeros", "diagonal": False},
    {"step": "orient", "axcodes": "ILP"},
    {"step": "scale_range_percentiles", "lower": 1.0, "upper": 99.0, "b_min": 0.0, "b_max": 1.0, "clip": True}
    | {"channel_wise": False},
    {"step": "scale", "channel_wise": False},
    {"step": "invert_bright_background", "low": 0.0, "high": 1.0},
    {"step": "adjust_contrast", "gamma": 0.7},
]
_ALONG_THE_WORLD = [
    {"step": "spacing", "pixdim": [1.5, 0.0, 1.2], "padding": "border", "diagonal": True},
    {"step": "scale_range", "a_min": -5.0, "a_max": 150.0, "b_min": None, "b_max": None, "clip": False},
    {"step": "crop_foreground", "margin": [1, 2, 3], "allow_smaller": True},
    {"step": "normalize", "nonzero": True, "channel_wise": True},
]


@pytest.mark.slow
def test_labels_in_javascript_are_those_of_the_runner(tmp_path, monkeypatch):
    monkeypatch.setattr(segmenter, "load_network", lambda *_: _stand_in)
    cases = [
        (_folder(tmp_path / "brain", _BRAIN, clear=True, flips=[0, 2]), _image(tmp_path / "a.nii.gz", _OBLIQUE)),
        (
            _folder(tmp_path / "skewed", _SKEWED, overlap=[0.25, 0.5, 0.6], blending="constant"),
            _image(tmp_path / "b.nii", _SHEARED, dtype=">i2"),
        ),
        (
            _folder(tmp_path / "world", _ALONG_THE_WORLD, shape=[8, 12, 60], padding_mode="reflect"),
            _image(tmp_path / "c.nii.gz", _OBLIQUE, kind=nibabel.Nifti2Image, forms=("qform",)),
        ),
        (
            _folder(tmp_path / "plain", [_BRAIN[0], _ABOVE_MEAN, {**_BRAIN[-1], "inside_surround": True}], flips=[1]),
            _image(tmp_path / "d.nii", _SHEARED, forms=()),
        ),
        (_folder(tmp_path / "turned", _BRAIN), _image(tmp_path / "e.nii", _AT_45_DEGREES)),
    ]
    for (folder, image), found in zip(cases, _run_javascript(cases, tmp_path), strict=True):
        runner = Segmenter(folder)
        volume = read_volume(image, runner.pipeline.reading)
        for step in runner.pipeline.preprocessing:
            STEPS[step["step"]](volume, **{name: value for name, value in step.items() if name != "step"})
        result = tmp_path / f"{folder.name}.nii"
        assert tuple(found["shape"]) == volume.shape
        voxels = np.fromfile(f"{result}.raw", dtype=np.float32).reshape(volume.shape)
        np.testing.assert_allclose(voxels, volume.voxels[0], rtol=1e-5, atol=1e-5)
        _assert_same_labels(result, image, runner.label(image))
        millilitres = [np.count_nonzero(nibabel.load(result).get_fdata() == label) for label in (1, 2)]
        size = abs(np.linalg.det(nibabel.load(image).affine[:3, :3])) / 1000
        np.testing.assert_allclose([each["ml"] for each in found["volumes"]], np.multiply(millilitres, size))


@pytest.mark.skipif(not _RUNTIME.is_file(), reason="needs node_modules: npm ci in examples/web")
def test_a_network_in_onnxruntime_web_gives_the_labels_of_the_runner(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    folder = _folder(tmp_path / "brain", _BRAIN, network=_convolution(), overlap=0.25)
    image = _image(tmp_path / "a.nii.gz", _OBLIQUE)
    _run_javascript([(folder, image)], tmp_path, runtime=str(_RUNTIME))
    _assert_same_labels(tmp_path / "brain.nii", image, Segmenter(folder).label(image))


def test_what_the_page_cannot_use_is_refused_in_one_line(tmp_path):
    good, image = _folder(tmp_path / "good", _BRAIN), _image(tmp_path / "a.nii.gz", _OBLIQUE)
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(image.read_bytes()[:2000])
    short = tmp_path / "short.nii"
    short.write_bytes(gzip.decompress(image.read_bytes())[:2000])
    text = tmp_path / "text.nii"
    text.write_bytes(b"no image " * 100)
    axes = tmp_path / "axes.nii"
    whole = bytearray(gzip.decompress(image.read_bytes()))
    whole[40:42] = (9).to_bytes(2, "little")
    axes.write_bytes(whole)
    flat = tmp_path / "flat.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 5, 5), np.uint8), np.eye(4)), flat)
    series = tmp_path / "series.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 5, 5, 2), np.uint8), np.eye(4)), series)
    holed = tmp_path / "holed.nii"
    nibabel.save(nibabel.Nifti1Image(np.full((5, 5, 5), np.nan, np.float32), np.eye(4)), holed)
    result = nibabel.Nifti1Image(np.ones((5, 5, 5), np.uint8), np.eye(4))
    result.header["descrip"] = b"written by monai-unetpp src=0123456789ab"
    nibabel.save(result, tmp_path / "a_seg.nii")
    other = _folder(tmp_path / "other", [{"step": "median_smooth"}])
    changed, smooth, mapped = (_folder(tmp_path / name, _BRAIN) for name in ("changed", "smooth", "mapped"))
    edit_json(smooth / PIPELINE_FILE, postprocessing=[{"step": "invert_probabilities"}])
    edit_json(mapped / PIPELINE_FILE, postprocessing=[{"step": "map_labels", "values": [0, 200, 37]}])
    (changed / "network.onnx").write_bytes(b"changed")
    expected = {
        (good, cut): "cut.nii.gz: damaged or cut off",
        (good, short): "short.nii: damaged or cut off",
        (good, text): "text.nii: not a NIfTI image",
        (good, axes): "axes.nii: its header gives 9 axes, NIfTI allows 1 to 7. Export or copy it again.",
        (good, flat): "flat.nii: every voxel has the value 0",
        (good, series): "series.nii: must have 3 axes and 1 channel, got shape (5, 5, 5, 2)",
        (good, tmp_path / "a_seg.nii"): "a_seg.nii: a result of monai-unetpp, not an image",
        (good, holed): "holed.nii: 125 of 125 voxels are NaN or infinite",
        (other, image): 'other: unknown step "median_smooth"',
        (
            smooth,
            image,
        ): "smooth: it resamples probabilities (smooth), which this page does not support. Export it",
        (mapped, image): "mapped: its label values are not 0, 1, 2, ..., which this page does not support. Use python",
        (changed, image): "changed: its network is damaged",
    }
    for message, found in zip(expected.values(), _run_javascript(list(expected), tmp_path), strict=True):
        assert found["error"].startswith(message)
        assert "\n" not in found["error"]


def test_the_server_refuses_what_it_cannot_serve_in_one_line(tmp_path):
    (tmp_path / "index.html").write_text("page")
    script = """
import { spawnSync } from "node:child_process";
const [folder, program] = process.argv.slice(1);
const { serve } = await import(program);
const server = await serve(folder, 0);
const { port } = server.address();
const statuses = [];
for (const path of ["/", "/nothing", "/%"]) statuses.push((await fetch(`http://127.0.0.1:${port}${path}`)).status);
const second = spawnSync(process.execPath, [program, String(port)], { encoding: "utf-8" });
console.log(JSON.stringify({ statuses, port, code: second.status, error: second.stderr }));
server.closeAllConnections();
server.close();
"""
    program = str(Path(__file__).parents[2] / "examples/web/serve.mjs")
    command = [_NODE, "--input-type=module", "-e", script, str(tmp_path), program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["statuses"] == [200, 404, 400]
    assert found["code"] == 2
    assert found["error"] == f"port {found['port']}: it is in use. Give another one: npm start -- PORT\n"
    # where the page was not built
    shutil.copy(program, tmp_path)
    command = [_NODE, str(tmp_path / "serve.mjs"), "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "dist/: holds no page. Build it first: npm run build -- FOLDER...\n"


@pytest.mark.slow
def test_the_worker_names_what_failed_and_keeps_the_network_that_it_has(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "ort").mkdir()
    for name in ("good", "damaged"):
        _folder(tmp_path / "models" / name, _BRAIN)
    (tmp_path / "models/damaged" / PIPELINE_FILE).write_text("<html>")
    (tmp_path / "ort/ort.wasm.min.mjs").write_text(_STAND_IN_RUNTIME)
    image = _image(tmp_path / "a.nii.gz", _OBLIQUE)
    script = """
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
const [folder, image, worker] = process.argv.slice(1);
const told = [];
let isOnline = true;
const at = (path) => ({ href: pathToFileURL(join(folder, path)).href, toString() { return this.href; } });
globalThis.self = { location: at("worker.js"), postMessage: (message) => told.push(message) };
globalThis.fetch = async (path) => {
  if (!isOnline) throw new TypeError("Failed to fetch");
  return new Response(await readFile(join(folder, path)));
};
const file = new File([await readFile(image)], "a.nii.gz");
const refuse = () => Promise.reject(new DOMException("", "NotReadableError"));
const changed = { name: "changed.nii", slice: () => ({ arrayBuffer: refuse }) };
const ask = async (name, file) => {
  await self.onmessage({ data: { folder: name, file, device: "wasm" } });
  const { kind, message, isForeseen } = told.at(-1);
  return [kind, message ?? null, isForeseen ?? null];
};
await import(worker);
const results = [await ask("good", file), await ask("damaged", file), await ask("good", changed)];
isOnline = false;
results.push(await ask("damaged", file), await ask("good", file));
isOnline = true;
self.location = at("elsewhere/worker.js");
await import(`${worker}?afresh`);
results.push(await ask("good", file));
console.log(JSON.stringify(results));
"""
    worker = (Path(__file__).parents[2] / "examples/web/src/worker.js").as_uri()
    command = [_NODE, "--input-type=module", "-e", script, str(tmp_path), str(image), worker]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    again = "Start it again with npm start."
    assert json.loads(done.stdout) == [
        ["done", None, None],
        ["failed", "damaged: its pipeline.json is damaged. Export the bundle again.", True],
        [
            "failed",
            "changed.nii: cannot be read (NotReadableError). It may have changed since it was chosen, or be too large "
            "for the browser. Choose it again.",
            True,
        ],
        ["failed", f"the page's server cannot be reached. {again}", True],
        ["done", None, None],
        [
            "failed",
            "ort/ort.wasm.min.mjs: cannot be loaded. Start the page's server again, or build the page again.",
            True,
        ],
    ]


def test_labels_have_the_colours_of_label_tables():
    source = (Path(__file__).parents[2] / "examples/web/src/colours.js").as_uri()
    script = f"""
import {{ colourOf }} from "{source}";
console.log(JSON.stringify(Array.from({{ length: 255 }}, (_, index) => colourOf(index + 1))));
"""
    command = [_NODE, "--input-type=module", "-e", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    labels = make_labels({value: str(value) for value in range(1, 256)})
    assert json.loads(done.stdout) == [list(label.colour) for label in labels]


def _stand_in(window):
    ramp = np.broadcast_to(np.arange(window.shape[-1], dtype=np.float32) / 8 - np.float32(0.5), window.shape)
    return np.concatenate([window, np.float32(0.5) - window, ramp])


def _convolution():
    """A network of one convolution, as the bytes of an ONNX file."""
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    weights = np.random.default_rng(0).normal(size=(3, 1, 3, 3, 3)).astype(np.float32)
    shapes = [onnx.helper.make_tensor_value_info(name, 1, [1, count, 16, 16, 16]) for name, count in _CHANNELS.items()]
    convolution = onnx.helper.make_node("Conv", ["image", "weights"], ["pred"], "first", pads=[1] * 6)
    graph = onnx.helper.make_graph(
        [convolution], "tiny", shapes[:1], shapes[1:], [onnx.numpy_helper.from_array(weights, "weights")]
    )
    opset = onnx.helper.make_opsetid("", 18)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


_CHANNELS = {"image": 1, "pred": 3}

# as ONNX Runtime Web, of which a session cannot be used after its release
_STAND_IN_RUNTIME = """
export const env = { wasm: {} };
export class Tensor {
  constructor(type, data) {
    this.data = data;
  }
}
export const InferenceSession = {
  create: async () => {
    let isOpen = true;
    const run = async ({ image: { data } }) => {
      if (!isOpen) throw new Error("released");
      return { pred: { data: Float32Array.from([...data, ...data.map((value) => 0.5 - value)]), dispose() {} } };
    };
    return { inputNames: ["image"], outputNames: ["pred"], run, release: async () => { isOpen = false; } };
  },
};
"""


def _folder(path, steps, network=b"network", clear=False, **windows):
    """An exported folder, without exporting one."""
    path.mkdir()
    (path / "network.onnx").write_bytes(network)
    described = {"files": ["network.onnx"], "format": "onnx", "precision": "fp32"}
    described["sha256"] = hash_file(path / "network.onnx")
    layout = {"shape": [16, 16, 16], "overlap": 0.5, "blending": "gaussian", "sigma_scale": 0.125}
    layout |= {"padding_mode": "constant", "cval": 0.0, "flips": [], "skip_constant": True, **windows}
    reading = {"spatial_dims": [3], "channels": 1, "allow_constant": False, "fill_nonfinite": None}
    post = [{"step": "clear_background"}] if clear else []
    names = {"0": "background", "1": "one", "2": "two"}
    pipeline = Pipeline("tiny", "L1", 3, names, reading, steps, described, layout, None, post, "none", {})
    (path / PIPELINE_FILE).write_text(pipeline.as_text())
    return path


def _image(path, affine, dtype="<f4", kind=nibabel.Nifti1Image, forms=("sform",)):
    """Noise in a constant surround; whole numbers have a scale."""
    rng = np.random.default_rng(1)
    voxels = np.full((24, 27, 22), -5.0)
    voxels[4:-3, 4:-3, 4:-3] = rng.normal(100, 20, (17, 20, 15))
    header = kind.header_class(endianness=dtype[0])
    header.set_data_dtype(dtype)
    image = kind(voxels.astype(np.float32), None, header)
    for form in forms:
        getattr(image.header, f"set_{form}")(affine, 1)
    if dtype.endswith("i2"):
        image.header.set_slope_inter(0.5, 3)
    nibabel.save(image, path)
    return path


def _run_javascript(cases, folder, **settings):
    listed = [
        {"folder": str(each), "image": str(image), "output": str(folder / f"{each.name}.nii"), **settings}
        for each, image in cases
    ]
    (folder / "cases.json").write_text(json.dumps(listed))
    command = [_NODE, str(Path(__file__).with_name("page.mjs")), str(folder / "cases.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _assert_same_labels(result, image, expected):
    found, source = nibabel.load(result), nibabel.load(image)
    np.testing.assert_array_equal(found.get_fdata(), expected)
    np.testing.assert_array_equal(found.affine, source.affine)
    assert len(np.unique(expected)) == 3
