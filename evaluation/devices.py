"""GPUs as a roofline sees them: bandwidth, dense rates, and how much of either a kernel reaches.

Rates are the vendor's, dense (half of what the sheets state "with sparsity"), in operations a second; efficiencies are
assumptions until `evaluation.roofline.fit` has seen measurements. Knows nothing of models.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

Rate = Literal["bf16", "int8", "fp8"]


class Efficiencies(BaseModel):
    """What kernels reach of a device's rates, and what each step costs besides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bf16: PositiveFloat = Field(0.6, description="share of the bf16 rate that matrix products reach")
    int8: PositiveFloat = Field(0.5, description="share of the int8 rate that matrix products reach")
    fp8: PositiveFloat = Field(0.5, description="share of the fp8 rate that matrix products reach")
    attention: PositiveFloat = Field(0.4, description="share of the bf16 rate that attention over a prompt reaches")
    bandwidth: PositiveFloat = Field(0.85, description="share of the memory bandwidth that reads and writes reach")
    dequantization: PositiveFloat = Field(
        1.1, description="time of a compute-bound bf16 product whose weights are unpacked on the way, per plain one"
    )
    layer_seconds: PositiveFloat = Field(1e-5, description="seconds a layer costs in every step, whatever it computes")
    step_seconds: PositiveFloat = Field(1e-3, description="seconds a step costs besides: scheduling, sampling")


class Device(BaseModel):
    """One GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bandwidth: PositiveFloat = Field(description="bytes a second to and from memory")
    cache: PositiveFloat = Field(description="bytes of the second-level cache: what fits does not go to memory")
    bf16: PositiveFloat = Field(description="dense bf16 operations a second, fp32 accumulation")
    int8: PositiveFloat = Field(description="dense int8 operations a second")
    fp8: float | None = Field(description="dense fp8 operations a second; None where there is no such unit")
    efficiencies: Efficiencies = Efficiencies()
    error: PositiveFloat = Field(
        0.12, description="how far off a predicted SpeedNorm may be: submissions imply 0.26 for W8A8 on an L4, not 0.15"
    )

    def rate(self, kind: Rate) -> float:
        """Operations a second that a matrix product of `kind` reaches; fp8 without its unit is unpacked to bf16."""
        if kind == "fp8" and self.fp8 is None:
            return self.bf16 * self.efficiencies.bf16 / self.efficiencies.dequantization
        reached: float = getattr(self, kind) * getattr(self.efficiencies, kind)
        return reached


# NVIDIA L4 Tensor Core GPU datasheet (2023): 300 GB/s, bf16 242 and int8, fp8 485 T with sparsity, 72 W. Efficiencies
# as facts at hand assume for it: 85 % of the bandwidth, 55 to 60 % of the rates.
L4 = Device(
    name="NVIDIA L4", bandwidth=300e9, cache=48e6, bf16=121e12, int8=242e12, fp8=242e12,
    efficiencies=Efficiencies(bf16=0.575, int8=0.575, fp8=0.575, layer_seconds=2e-5),
)  # fmt: skip
# NVIDIA H100 Tensor Core GPU datasheet (2023), SXM: 3.35 TB/s, bf16 1,979 and int8, fp8 3,958 T with sparsity.
# Predicted SpeedNorm was off by 0.011 on average where a variant was left out of the fit (docs/measurements.md); twice
# the goal of 0.03 leaves room for what was not among the variants.
H100 = Device(
    name="NVIDIA H100 SXM", bandwidth=3.35e12, cache=50e6, bf16=989.5e12, int8=1979e12, fp8=1979e12, error=0.06
)
# NVIDIA Ada GPU Architecture whitepaper 2.01, appendix A: 1,008 GB/s; dense bf16 165.2, fp8 330.3 (both with fp32
# accumulation), int8 660.6 T.
RTX_4090 = Device(
    name="NVIDIA GeForce RTX 4090", bandwidth=1008e9, cache=72e6, bf16=165.2e12, int8=660.6e12, fp8=330.3e12
)
# NVIDIA A100 80GB datasheet (2021), SXM: 2,039 GB/s, dense bf16 312, int8 624 T; no fp8 unit.
A100 = Device(name="NVIDIA A100 SXM 80GB", bandwidth=2039e9, cache=40e6, bf16=312e12, int8=624e12, fp8=None)

DeviceName = Literal["L4", "H100", "RTX 4090", "A100"]
DEVICES: dict[DeviceName, Device] = {"L4": L4, "H100": H100, "RTX 4090": RTX_4090, "A100": A100}


# As a driver tells them: a PCIe board, a laptop's or a slice of one of them is another device.
TOLD: dict[str, DeviceName] = {
    "NVIDIA L4": "L4",
    "NVIDIA H100 80GB HBM3": "H100",
    "NVIDIA GeForce RTX 4090": "RTX 4090",
    "NVIDIA A100-SXM4-80GB": "A100",
}


def known_device(told: str) -> DeviceName | None:
    """Which of them a driver's name of a GPU is; None for any other."""
    return TOLD.get(told)
