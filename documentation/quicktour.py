# %% [markdown]
# # copgen in ten minutes
#
# `CopGenPipeline` takes pictures and gives pictures: any of elevation, radar and two kinds of optical image, from any
# others or from nothing. This tour uses `copgen-sim`, the small model that comes with the package. It was trained on a
# simulated Earth, so there is a truth to compare with, and nothing needs to be downloaded.

# %%
import io
from datetime import datetime

import numpy as np
from IPython.display import Image as Shown
from PIL import Image

from copgen_cli import CopGenPipeline
from copgen_cli.modalities import PUBLISHED
from copgen_cli.outputs.grids import Block, Line, draw_grid
from copgen_cli.simulation.world import days_between, simulate_cell

pipe = CopGenPipeline.from_pretrained("copgen-sim")
f"{', '.join(pipe.modalities)}: {pipe.image_size} px a side"


# %%
def show(columns, rows):
    """A labelled grid of pictures, reduced so that the notebook stays small."""
    side = 144
    lines = [
        Line(label, tuple(np.asarray(p.resize((side, side), Image.Resampling.LANCZOS)) for p in pictures))
        for label, pictures in rows.items()
    ]
    page = draw_grid([Block(c, ("",)) for c in columns], lines, side=side, footer="Synthetic, by copgen-sim")
    stream = io.BytesIO()
    page.save(stream, "JPEG", quality=80)
    return Shown(stream.getvalue())


TITLES = [modality.spec.title for modality in PUBLISHED]

# %% [markdown]
# ## A place whose truth is known
#
# A cell of the simulated Earth, in the season that the model learned, from a seed that training never saw; we take the
# 256 px in the middle of its thumbnails, as `copgen prepare` would cut them. Elevation comes with a third of the pixels and is enlarged first.

# %%
autumn = days_between(datetime(2020, 9, 10), datetime(2020, 11, 5))
cell = simulate_cell("507U_265R", seed=9002, days=autumn)


def patch(thumbnail):
    whole = Image.fromarray(thumbnail).convert("RGB").resize((1068, 1068), Image.Resampling.BILINEAR)
    return whole.crop((406, 406, 662, 662))


truth = {modality: patch(getattr(cell, modality.value)) for modality in PUBLISHED}
show(TITLES, {"truth": list(truth.values())})

# %% [markdown]
# ## From nothing
#
# Without a condition the model dreams up places: all four views of each belong together. The seed and the names of the
# samples fix the noise, so the same call gives the same pictures, alone or in a batch.

# %%
made = pipe(generate=list(PUBLISHED), num_samples=2, seed=0).images
show(TITLES, {f"sample {k + 1}": [made[m][k] for m in PUBLISHED] for k in range(2)})

# %% [markdown]
# ## From each view to the others
#
# One view is given, the other three are drawn from it. The given one stands on the diagonal. This small model turns
# one optical view into the other well and draws slopes from either and from radar; the rest it knows in part, as
# [its card](../copgen_cli/assets/copgen-sim/README.md) tells in numbers.

# %%
rows = {}
for given in PUBLISHED:
    others = [m for m in PUBLISHED if m is not given]
    made = pipe(generate=others, condition={given: truth[given]}, seed=0).images
    rows[f"from {given}"] = [truth[m] if m is given else made[m][0] for m in PUBLISHED]
show(TITLES, {"truth": list(truth.values()), **rows})

# %% [markdown]
# ## More than one condition
#
# Any of the views can be given together, here radar and elevation. What is neither given nor asked for (L1C here) is left
# out of the question.

# %%
pictures = []
for names in (["dem"], ["s1_rtc"], ["dem", "s1_rtc"]):
    given = {name: truth[name] for name in names}
    made = pipe(generate="s2_l2a", condition=given, seed=1)
    pictures.append(made.images["s2_l2a"][0])
show(["from dem", "from s1_rtc", "from both", "truth"], {"s2_l2a": [*pictures, truth["s2_l2a"]]})

# %% [markdown]
# ## Guidance
#
# `guidance_scale` pushes a sample towards its condition, away from what the model would draw without it; 0 is off.

# %%
scales = [0.0, 0.5, 1.0, 2.0]
pictures = [
    pipe(
        generate="s2_l2a", condition={"s2_l1c": truth["s2_l1c"]}, guidance_scale=scale, seed=1
    ).images["s2_l2a"][0]
    for scale in scales
]  # fmt: skip
show([f"scale {scale:g}" for scale in scales] + ["truth"], {"s2_l2a": [*pictures, truth["s2_l2a"]]})

# %% [markdown]
# ## How sure is it?
#
# Several samples from one condition, their mean, and where they differ: the standard deviation, four grey levels per
# level. `copgen sample --spread` writes the same pictures.

# %%
from copgen_cli.outputs.spread import mean_picture, std_picture

samples = pipe(
    generate="s2_l2a", condition={"s2_l1c": truth["s2_l1c"]}, num_samples=6, seed=2
).images["s2_l2a"]  # fmt: skip
arrays = [np.asarray(picture) for picture in samples]
spread = [Image.fromarray(mean_picture(arrays)), Image.fromarray(std_picture(arrays))]
show(
    ["sample 1", "sample 2", "sample 3", "mean of 6", "deviation x 4", "truth"],
    {"s2_l1c to s2_l2a": [*samples[:3], *spread, truth["s2_l2a"]]},
)

# %% [markdown]
# ## On
#
# `copgen sample --help` does this over folders, stores and several GPUs; `copgen evaluate` puts numbers to it.
# `CopGenPipeline.from_pretrained` takes a run of your own (`runs/rome-small/model`) or the released weights
# (`mespinosami/COP-GEN-Beta`) in place of `copgen-sim`.
