"""What a generated trace should be like: rate over time, lengths, prefix hits."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

MAX_PEAK_RPS = 1_000_000.0
"""Bounds the memory of one bin; a thousand times what a large fleet serves."""

Tokens = Annotated[int, Field(ge=1, le=10_000_000)]


class LengthMode(BaseModel):
    """One mode of a length distribution: a lognormal."""

    model_config = _FROZEN

    weight: float = Field(gt=0, le=1e6)
    """Share of the body in this mode, relative to the other modes' weights."""
    median_tokens: float = Field(ge=1, le=1e7)
    """Median length of the mode, in tokens."""
    sigma: float = Field(ge=0, le=4)
    """Standard deviation of the natural logarithm; 0.02 is a spike (a context limit), 1 spans two decades."""


class LengthSpec(BaseModel):
    """A length distribution: lognormal modes as the body, a Pareto tail above a start."""

    model_config = _FROZEN

    modes: tuple[LengthMode, ...] = Field(min_length=1, max_length=16)
    """The body; two modes or more where short and long answers, or templates and documents, mix."""
    tail_share: float = Field(default=0.0, ge=0, le=1)
    """Share of requests whose length is drawn from the tail instead of the body."""
    tail_start_tokens: float = Field(default=4096.0, ge=1, le=1e7)
    """Where the Pareto tail begins."""
    tail_alpha: float = Field(default=2.0, gt=0.1, le=100)
    """Exponent of the tail: P(length > x) = (start / x)^alpha; below 2 the variance is set by the cap."""
    min_tokens: Tokens = 1
    """Shortest length; draws below are set to it."""
    max_tokens: Tokens = 131_072
    """Longest length, usually the context limit; draws above are set to it, as serving cuts them."""

    @model_validator(mode="after")
    def _ordered(self) -> LengthSpec:
        if self.min_tokens > self.max_tokens:
            raise ValueError("min_tokens is above max_tokens")
        return self


class GeneratorSpec(BaseModel):
    """A seeded workload.

    The rate is rps x daily x weekend x trend x step x flash crowd x bursts x level x idle; the last three are
    random with a mean of their own, the arrivals are Poisson given the rate.
    """

    model_config = _FROZEN

    name: str = "generated"
    """Name of the trace in tables."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Same spec and seed, same trace, on every machine."""
    duration_s: float = Field(default=3600.0, gt=0, le=10 * 366 * 86_400.0)
    """Length of the trace, in seconds."""
    rps: float = Field(default=5.0, gt=0, le=100_000)
    """Mean rate in requests per second before the patterns below; level and idle leave the mean as it is."""

    daily_amplitude: float = Field(default=0.0, ge=0, le=1)
    """Height of the sinusoid relative to the mean: 0.5 swings between 0.5 and 1.5 times the rate."""
    daily_period_s: float = Field(default=86_400.0, gt=0)
    """Period of the sinusoid in seconds; shorter than a day to see several days in a short replay."""
    daily_peak_s: float = Field(default=50_400.0, ge=0)
    """Time of the first peak, in seconds from the start; 50,400 is two in the afternoon."""

    night_share: float = Field(default=0.0, ge=0, le=0.95)
    """Share of every daily period, around its trough, without any request; the rest stays as it is."""
    weekend_factor: float = Field(default=1.0, ge=0, le=100)
    """The rate on the sixth and seventh of every seven daily periods over that of the others; 1 is no weekend. It
    changes over the first 24th of a period: an hour of a day."""

    trend_per_hour: float = Field(default=0.0, ge=-1, le=100)
    """Linear growth: 0.1 adds a tenth of the base rate every hour; the rate stops at zero, not below."""

    step_at_s: float = Field(default=0.0, ge=0)
    """When the rate steps, in seconds."""
    step_factor: float = Field(default=1.0, ge=0, le=1000)
    """The rate after the step over the rate before; 1 is no step."""
    step_duration_s: float = Field(default=0.0, ge=0)
    """Seconds after which the rate steps back; 0 for never."""

    flash_at_s: float = Field(default=0.0, ge=0)
    """When a flash crowd begins, in seconds."""
    flash_factor: float = Field(default=1.0, ge=1, le=1000)
    """Peak of the flash crowd over the rate before; 1 is none."""
    flash_ramp_s: float = Field(default=30.0, gt=0)
    """Seconds from the beginning to the peak: shorter than an engine's cold start is what hurts."""
    flash_decay_s: float = Field(default=300.0, gt=0)
    """Time constant of the exponential decline after the peak, in seconds."""

    bursts_per_hour: float = Field(default=0.0, ge=0, le=3600)
    """Mean number of random bursts per hour (Poisson)."""
    burst_factor: float = Field(default=3.0, ge=1, le=1000)
    """The rate during a burst over the rate without; bursts that overlap do not multiply."""
    burst_duration_s: float = Field(default=30.0, gt=0)
    """Mean duration of a burst in seconds (exponential)."""

    dispersion: float = Field(default=1.0, ge=1, le=1000)
    """Index of dispersion (variance over mean) of the counts per second that the random level causes at the
    rate `rps`: 1 is Poisson, more is burstier. The other patterns add to it."""
    dispersion_memory_s: float = Field(default=10.0, ge=1)
    """Mean time for which the random level holds, in seconds: 1 is jitter that queues absorb, minutes are
    waves that only scaling absorbs."""

    idle_share: float = Field(default=0.0, ge=0, le=0.95)
    """Share of time without any request; the rest is that much busier."""
    idle_duration_s: float = Field(default=60.0, ge=1)
    """Mean duration of an idle spell in seconds (exponential)."""

    isl: LengthSpec = LengthSpec(modes=(LengthMode(weight=1, median_tokens=800, sigma=0.9),))
    """Input lengths, in tokens."""
    osl: LengthSpec = LengthSpec(modes=(LengthMode(weight=1, median_tokens=160, sigma=0.8),), max_tokens=16_384)
    """Output lengths, in tokens."""
    length_correlation: float = Field(default=0.0, ge=-1, le=1)
    """Correlation of the logarithms of input and output length within the modes."""
    isl_growth_per_hour: float = Field(default=0.0, ge=-1, le=100)
    """Linear drift of the input lengths: 1 doubles them within the first hour; they stop at the shortest."""
    osl_growth_per_hour: float = Field(default=0.0, ge=-1, le=100)
    """Linear drift of the output lengths, likewise."""

    prefix_hit_share: float = Field(default=0.0, ge=0, le=0.99)
    """Mean over requests of the share of the prompt found in the prefix cache."""
    prefix_miss_share: float = Field(default=0.3, ge=0, le=0.99)
    """Share of requests without any hit (first turns), as long as `prefix_hit_share` leaves room for it; the
    rest follow a beta distribution."""
    prefix_block_tokens: int = Field(default=16, ge=1, le=65_536)
    """Hits come in whole blocks of this many tokens; 16 is vLLM's default."""

    @property
    def peak_rps(self) -> float:
        """What the patterns can raise the rate to, the random level and idle time left aside."""
        growth = 1 + max(0.0, self.trend_per_hour) * self.duration_s / 3600
        patterns = (1 + self.daily_amplitude) * max(1.0, self.step_factor) * self.flash_factor
        patterns *= max(1.0, self.weekend_factor)
        bursts = self.burst_factor if self.bursts_per_hour else 1.0
        return self.rps * growth * patterns * bursts

    @model_validator(mode="after")
    def _within_reason(self) -> GeneratorSpec:
        if self.peak_rps > MAX_PEAK_RPS:
            raise ValueError(f"a peak of at most {MAX_PEAK_RPS:g} requests per second, not {self.peak_rps:g}")
        return self
