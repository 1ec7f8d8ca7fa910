"""The steps of `gpu_first.py` in the first hour on a GPU machine, and the questions they answer. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MODULES = ("torch", "numpy", "pandas", "safetensors", "pynvml", "hydra", "omegaconf", "pydantic", "rich")
"""Modules that every step needs; each step names the further ones that it needs."""


@dataclass(frozen=True)
class Places:
    """The interpreter that runs the steps, and the folders it uses."""

    python: str
    results: Path
    data: Path
    artifacts: Path

    def words(self) -> tuple[str, ...]:
        """The folders as overrides of `python -m benchmark`."""
        return (f"paths.results={self.results}", f"paths.data={self.data}", f"paths.artifacts={self.artifacts}")


@dataclass(frozen=True)
class Step:
    """One step: the words after the interpreter, and the time and modules that it needs.

    A step does not begin with less than `least_s` left, and runs for at most one slice at a time. A `resumable` step
    may then be cut off, and the next call continues it. Any other step that does not end within `limit_s` (or a slice)
    has failed. `needs` are modules, `after` is a step that must have passed, `instead_of` one that must have failed.
    """

    name: str
    command: tuple[str, ...]
    least_s: float
    limit_s: float = 0.0
    resumable: bool = False
    needs: tuple[str, ...] = ()
    after: str = ""
    instead_of: str = ""


NOT_BUILT = (
    ("nas: ProxylessNAS and DARTS in full", "longer than this hour: python -m benchmark study experiment=nas"),
)
"""Rows of Table 3 that no step makes."""

GPU_TESTS = """
import sys, pytest, torch
if not torch.cuda.is_available():
    sys.exit("torch sees no CUDA device: every test would be skipped")
sys.exit(pytest.main(sys.argv[1:]))
"""
PYTEST = (
    "-c", GPU_TESTS, "-m", "gpu", "-rfE", "--continue-on-collection-errors",
    "-p", "no:benchmark",  # it warns under xdist, where it is installed
    "-p", "no:cacheprovider",
    "-o", "filterwarnings=default",  # another torch or Python has other deprecation warnings; they fail no test
)  # fmt: skip  # options and their values in pairs
SHORT = ("recipe=check", "inference.windows=5", "inference.warmup_cap_s=60")
"""Eight epochs of all the data, and half the windows: a life of some minutes, whose rows do not belong to Table 3."""


GRAPHS = "engine=torch_graph"
EXPORT = ("onnx", "onnxruntime", "onnxscript")
"""The modules that export a network for every engine except torch's."""


def all_steps(places: Places) -> list[Step]:
    """All steps, the most important first."""
    device = ("hardware=gpu", *places.words())
    results = str(places.results)
    return [
        Step("probe", ("-m", "benchmark", "device", "--probe", *device), 75, 180),
        Step("gpu-check", ("scripts/gpu_check.py", "--device", "cuda:0", "--results", results), 420, 540),
        Step("gpu tests", PYTEST, 120, 540, needs=("pytest", "hypothesis")),
        Step("perf: energy", ("scripts/perf_energy.py",), 90, 540),
        Step("perf: training", ("scripts/perf_training.py",), 240, 540),
        Step("perf: distillation", ("scripts/perf_distillation.py",), 240, 540),
        Step("perf: start", ("scripts/perf_start.py",), 90, 540),
        Step("perf: deployment", ("scripts/perf_deployment.py", "5"), 120, 540, needs=EXPORT),
        Step("perf: efficient", ("scripts/perf_efficient.py",), 60, 300, needs=EXPORT),
        Step("perf: NAS", ("scripts/perf_nas.py",), 60, 300),
        Step("data", ("-m", "benchmark", "data", "name=cifar100", f"paths.data={places.data}"), 20, 300),
        *_short_lives(device),
        *_table_3(device),
    ]


def _life(name: str, *words: str, after: str = "data", needs: tuple[str, ...] = ()) -> Step:
    command = ("-m", "benchmark", "run", *words)
    return Step(name, command, 90, resumable=True, after=after, needs=needs)


def _short_lives(device: tuple[str, ...]) -> list[Step]:
    dense = ("method=baseline", "model=nni/vgg16", *SHORT, *device)
    tuned = ("model=nni/vgg16", "method.finetune_epochs=2", *SHORT, *device)
    pruned, amp = ("method=pruning/apoz", *tuned), ("method=training/amp", *dense[1:])
    pretended = Step(
        "short life: VGG16 on synthetic images",
        ("-m", "benchmark", "run", *dense, "data=synthetic"),
        90,
        resumable=True,
        instead_of="data",
    )
    distilled = ("method=distillation/crd", "pair=resnet56__resnet20", *SHORT, *device)
    return [
        _life("short life: VGG16", *dense),
        *(
            _life(f"short life: VGG16 {precision} from CUDA graphs", *dense, f"deploy_precision={precision}", GRAPHS)
            for precision in ("fp32", "tf32", "bf16", "fp16")
        ),
        _life("short life: VGG16 INT8 by TensorRT", *dense, "deploy_precision=int8", needs=("tensorrt", *EXPORT)),
        *(
            _life(f"short life: VGG16 by amp in {precision}", *amp, f"method.precision={precision}")
            for precision in ("bf16", "fp16")
        ),
        _life("short life: VGG16 factored", "method=factorization/low_rank", *tuned),
        _life("short life: VGG16 trained for INT8", "method=quantization/qat", *dense[1:], needs=("tensorrt", *EXPORT)),
        _life("short life: VGG16 pruned", *pruned),
        _life("short life: VGG16 pruned by NNI", *pruned, "method.backend=nni", needs=("nni",)),
        _life("short life: ResNet56->ResNet20 by CRD", *distilled),
        *_searched(device),
        pretended,
    ]


def _searched(device: tuple[str, ...]) -> list[Step]:
    """Searches in the smallest spaces: DARTS from its graph, ProxylessNAS with the board's table of costs, scores."""
    priced = "method.costs={kind:energy}"
    small = ("inference.windows=5", "inference.warmup_cap_s=60", *device)
    return [
        _life("short life: cells searched by DARTS", "method=nas/darts_tiny", *small),
        _life("short life: blocks searched, priced in energy", "method=nas/proxylessnas_tiny", priced, *small),
        _life("short life: blocks searched by scores", "method=nas/zero_cost", "method.size=xs", *SHORT, *device),
    ]


def _table_3(device: tuple[str, ...]) -> list[Step]:
    vgg16 = ("model=nni/vgg16", *device)
    pruners = ("apoz", "fpgm", "l2", "taylorfo")
    distilled = [
        _life(f"Table 3: {pair} {name}", f"method=distillation/{name}", f"pair={pair}", *device)
        for pair in ("vgg13__vgg8", "resnet56__resnet20")
        for name in ("kd", "crd")
    ]
    return [
        _life("Table 3: VGG16", "method=baseline", *vgg16),
        _life("Table 3: VGG16 FP16", "method=quantization/fp16", *vgg16),
        _life("Table 3: VGG16 INT8", "method=quantization/int8", *vgg16, needs=("tensorrt", *EXPORT)),
        *(_life(f"Table 3: VGG16 {name}", f"method=pruning/{name}", *vgg16) for name in pruners),
        *distilled,
        _life("Table 3: ResNet18", "method=baseline", "model=nni/resnet18", *device),
        _life("Table 3: VGG19", "method=baseline", "model=nni/vgg19", *device),
        *(
            _life(f"beyond the paper: {model} by amp", "method=training/amp", f"model=nni/{model}", *device)
            for model in ("vgg16", "resnet18")
        ),
        _life("beyond the paper: P-MB S by ProxylessNAS", "method=nas/proxylessnas", *device),
    ]


QUESTIONS = (
    ("Do the driver, torch and the meter find the same board, and does a first kernel run?", ("probe", "gpu-check")),
    ("Counter tick, sensor periods, cost of each call, the driver's ring, bare and context idle", ("probe",)),
    ("Counter and trapezoid agree on four loads; 2N steps cost twice N; stages add up; windows repeat", ("gpu-check",)),
    ("No other process is seen on the board, also in a container, where pids are the host's", ("gpu-check",)),
    ("Do graphs, compiled steps, clipping, dropout and masked fine-tuning train as eager steps do?", ("gpu tests",)),
    ("After ready() no stage loads a library, and the random generators have not moved", ("gpu tests",)),
    ("What a sample, a window and a query by nvidia-smi cost", ("perf: energy",)),
    ("How much faster a step is than in the originals' code", ("perf: training",)),
    ("What our CRD and NST save, and what a step of each distillation method costs", ("perf: distillation",)),
    ("What starting costs", ("perf: start",)),
    ("Engines by precision and batch size: torch eager beside CUDA graphs", ("perf: deployment",)),
    ("What autocast saves of a step, and what fake quantization costs", ("perf: efficient",)),
    ("What the steps of searches cost, and what a graph saves of DARTS's", ("perf: NAS",)),
    (
        "Searches from their graphs and with a table of the board's joules",
        ("short life: blocks searched, priced in energy",),
    ),
    ("VGG16 and ResNet18 under autocast", ("beyond the paper: vgg16 by amp", "beyond the paper: resnet18 by amp")),
    ("The same network in fp32, TF32, bf16 and fp16 from CUDA graphs", ("short life: VGG16 fp16 from CUDA graphs",)),
    (
        "Does TensorRT build, load and agree with PyTorch, and which layers ran in INT8?",
        ("short life: VGG16 INT8 by TensorRT",),
    ),
    ("A whole life: base, deployment, inference; its rows and their grades", ("short life: VGG16",)),
    ("A pruned life: masks, fine-tuning from graphs, shrinking, a smaller engine", ("short life: VGG16 pruned",)),
    ("A distilled life: teacher, CRD's memories in graphs, a student", ("short life: ResNet56->ResNet20 by CRD",)),
    ("The same by NNI's pruner", ("short life: VGG16 pruned by NNI",)),
    ("Windows rejected or noted: power limit, heat, clocks, neighbours (in the records' details)", ("Table 3: VGG16",)),
    (
        "The paper's rows on this board",
        ("Table 3: VGG16", "Table 3: VGG16 apoz", "Table 3: vgg13__vgg8 crd", "Table 3: ResNet18", "Table 3: VGG19"),
    ),
)
"""The questions that only a GPU can answer, in order, and the steps that answer them."""
