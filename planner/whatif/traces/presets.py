"""Named workloads for the command line: generate:NAME[,key=value...]."""

from __future__ import annotations

import difflib

from pydantic import ValidationError

from planner.whatif.traces.readers.source import shown
from planner.whatif.traces.spec import GeneratorSpec, LengthMode, LengthSpec
from profiler.errors import InputError

PREFIX = "generate:"

# The conversation and code presets approach the rate, burstiness and length percentiles of the Azure
# conversation and code traces of November 2023; the formulas are our own and nothing is taken from single
# requests.
_CONVERSATION = GeneratorSpec(
    name="conversation",
    rps=5.53,
    daily_amplitude=0.28,
    daily_period_s=3600,
    daily_peak_s=1800,
    dispersion=1.17,
    dispersion_memory_s=60,
    isl=LengthSpec(
        modes=(
            LengthMode(weight=0.42, median_tokens=380, sigma=0.7),
            LengthMode(weight=0.45, median_tokens=1095, sigma=0.08),
            LengthMode(weight=0.065, median_tokens=4090, sigma=0.01),
        ),
        tail_share=0.06,
        tail_start_tokens=1500,
        tail_alpha=2.0,
        max_tokens=14_336,
    ),
    osl=LengthSpec(
        modes=(
            LengthMode(weight=0.66, median_tokens=92, sigma=0.5),
            LengthMode(weight=0.34, median_tokens=402, sigma=0.08),
        ),
        tail_share=0.02,
        tail_start_tokens=450,
        tail_alpha=4.0,
        min_tokens=5,
        max_tokens=1024,
    ),
    length_correlation=0.1,
)
_CODE = GeneratorSpec(
    name="code",
    rps=2.57,
    dispersion=8.5,
    dispersion_memory_s=6,
    idle_share=0.28,
    idle_duration_s=90,
    isl=LengthSpec(
        modes=(
            LengthMode(weight=0.15, median_tokens=150, sigma=0.6),
            LengthMode(weight=0.81, median_tokens=1700, sigma=0.7),
            LengthMode(weight=0.04, median_tokens=7300, sigma=0.02),
        ),
        max_tokens=7436,
    ),
    osl=LengthSpec(
        modes=(LengthMode(weight=1, median_tokens=10, sigma=0.45),),
        tail_share=0.31,
        tail_start_tokens=25,
        tail_alpha=1.5,
        min_tokens=6,
        max_tokens=2048,
    ),
)
# Approaches rate, lengths and prefix hits of Mooncake's conversation trace: long prompts, of which later turns find
# most in the cache. That trace's clock ticks every three seconds; the groups which it makes of requests are left out.
_LONG_CONVERSATION = GeneratorSpec(
    name="long-conversation",
    rps=3.1,
    trend_per_hour=0.2,
    dispersion=1.05,
    dispersion_memory_s=20,
    isl=LengthSpec(
        modes=(
            LengthMode(weight=0.15, median_tokens=920, sigma=0.04),
            LengthMode(weight=0.85, median_tokens=8_300, sigma=1.0),
        ),
        min_tokens=890,
        max_tokens=126_000,
    ),
    osl=LengthSpec(
        modes=(
            LengthMode(weight=0.22, median_tokens=35, sigma=1.0),
            LengthMode(weight=0.78, median_tokens=410, sigma=0.4),
        ),
        max_tokens=2_000,
    ),
    # Whole blocks cut shares down: this gives 0.41.
    prefix_hit_share=0.49,
    prefix_miss_share=0.12,
    prefix_block_tokens=512,
)
# The load of a public benchmark of an autoscaler: every request alike, long in and long out, and one step.
_LONG_STEP = GeneratorSpec(
    name="long-step",
    duration_s=1800,
    rps=2.0,
    step_at_s=300,
    step_factor=10,
    isl=LengthSpec(modes=(LengthMode(weight=1, median_tokens=4_000, sigma=0),)),
    osl=LengthSpec(modes=(LengthMode(weight=1, median_tokens=1_000, sigma=0),)),
)
# Chat beside documents: two kinds of requests that differ by a factor of forty in work.
_BIMODAL = GeneratorSpec(
    name="bimodal",
    rps=20.0,
    daily_amplitude=0.4,
    daily_period_s=1800,
    daily_peak_s=900,
    dispersion=1.5,
    isl=LengthSpec(
        modes=(
            LengthMode(weight=0.85, median_tokens=250, sigma=0.4),
            LengthMode(weight=0.15, median_tokens=7_000, sigma=0.3),
        ),
        max_tokens=16_000,
    ),
    osl=LengthSpec(
        modes=(
            LengthMode(weight=0.5, median_tokens=40, sigma=0.4),
            LengthMode(weight=0.5, median_tokens=500, sigma=0.3),
        ),
        max_tokens=2_000,
    ),
)
# Long documents read and summed up: few requests keep many GPUs busy, so that a live demo needs little of the machine
# that simulates them. A crowd comes after three minutes.
_DOCUMENTS = GeneratorSpec(
    name="documents",
    duration_s=750,
    rps=1.0,
    flash_at_s=180,
    flash_factor=5,
    flash_ramp_s=180,
    flash_decay_s=120,
    isl=LengthSpec(
        modes=(
            LengthMode(weight=0.7, median_tokens=11_000, sigma=0.25),
            LengthMode(weight=0.3, median_tokens=4_000, sigma=0.4),
        ),
        min_tokens=200,
        max_tokens=16_000,
    ),
    osl=LengthSpec(modes=(LengthMode(weight=1, median_tokens=600, sigma=0.4),), min_tokens=50, max_tokens=2_000),
)


def _conversation(**changes: object) -> GeneratorSpec:
    """Returns the conversation workload at a flat rate, with some fields changed."""
    return _CONVERSATION.model_copy(update={"daily_amplitude": 0.0, **changes})


PRESETS: dict[str, GeneratorSpec] = {
    "conversation": _CONVERSATION,
    "code": _CODE,
    "long-conversation": _LONG_CONVERSATION,
    "documents": _DOCUMENTS,
    "bimodal": _BIMODAL,
    "long-step": _LONG_STEP,
    "step": _conversation(name="step", step_at_s=1200.0, step_factor=3.0),
    "flash": _conversation(name="flash", flash_at_s=1200.0, flash_factor=8.0),
    "daily": _conversation(
        name="daily",
        duration_s=86_400.0,
        daily_amplitude=0.6,
        daily_period_s=86_400.0,
        daily_peak_s=50_400.0,
        bursts_per_hour=1.0,
        burst_factor=2.0,
    ),
    # A week pressed into seven quarters of an hour, as the weekend needs seven days to show.
    "week": _conversation(
        name="week",
        duration_s=6300.0,
        daily_amplitude=0.6,
        daily_period_s=900.0,
        daily_peak_s=525.0,
        weekend_factor=0.4,
    ),
    "nights": _conversation(
        name="nights",
        duration_s=3600.0,
        daily_amplitude=0.8,
        daily_period_s=1200.0,
        daily_peak_s=600.0,
        night_share=0.35,
    ),
    "lull": _conversation(name="lull", duration_s=2700.0, step_at_s=900.0, step_duration_s=900.0, step_factor=0.02),
    "drift": _conversation(name="drift", duration_s=3600.0, isl_growth_per_hour=1.5, osl_growth_per_hour=0.5),
}
"""One line per workload."""

_KEYS = [
    name for name, field in GeneratorSpec.model_fields.items() if field.annotation in (int, float) and name != "name"
]


def parse_generator(text: str) -> GeneratorSpec:
    """Reads `generate:NAME[,key=value...]`; the keys are the numeric fields of `GeneratorSpec`.

    Raises:
        InputError: the workload or a key is unknown (the nearest is suggested), or a value is out of range.
    """
    preset, *settings = text.removeprefix(PREFIX).split(",")
    preset = preset.strip()
    if preset not in PRESETS:
        raise InputError(
            f"no workload {shown(preset)}{_suggestion(preset, list(PRESETS))}",
            expected=f"one of {', '.join(PRESETS)}",
            source=shown(text),
        )
    values: dict[str, str] = {}
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            raise InputError(
                f"{shown(setting)} is not a setting", expected="key=value, such as rps=20", source=shown(text)
            )
        if key not in _KEYS:
            raise InputError(
                f"no setting {shown(key)}{_suggestion(key, _KEYS)}",
                expected=f"one of {', '.join(_KEYS)}",
                source=shown(text),
            )
        if key in values:
            raise InputError("set twice", expected="each setting once", source=shown(text), field=key)
        values[key] = value
    try:
        return GeneratorSpec.model_validate({**PRESETS[preset].model_dump(), **values})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            # Without a place, it is the settings together that are wrong, and the message says it all.
            f"found {shown(first['input'])}" if first["loc"] else "the settings do not go together",
            expected=first["msg"].removeprefix("Input should be ").removeprefix("Value error, "),
            source=shown(text),
            field=".".join(str(part) for part in first["loc"]),
        ) from error


def _suggestion(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
