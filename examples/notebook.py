# %% [markdown]
# Maskwire in a notebook: run the cells one by one (VS Code, Jupytext, Spyder), with `maskwire up` in a terminal.

# %%
from pathlib import Path

import numpy as np
from maskwire import Client, Prompt
from PIL import Image

mw = Client()
photo = Path(__file__).parent / "coffee.jpg"

# %% What is embedded is an image for every other call
image = mw.embed(photo)
image  # noqa: B018

# %% The names of SAM2ImagePredictor work, and a result shows itself
result = mw.segment(image, point_coords=[[260, 130]], point_labels=[1], multimask_output=True)
result  # noqa: B018

# %%
print(result.score, result.box, result.area, result.mask.shape)
result.save("cup.png")
result.save_overlay("cup-overlay.png")

# %% Arrays are RGB; what OpenCV reads is BGR
pixels = np.asarray(Image.open(photo))
same = mw.segment(pixels[:, :, ::-1], points=[(260, 130)], channels="bgr")
print((same.mask == mw.segment(pixels, points=[(260, 130)]).mask).all())

# %% Several boxes are several objects
cup, saucer = mw.segment_objects(image, boxes=np.array([[135, 40, 400, 345], [80, 20, 480, 385]]))
print(cup.score, saucer.score)

# %% A session without `with`: it opens at the first click
session = mw.session(image)
session.click(260, 130)
refined = session.click(300, 330, positive=False)
session.undo()
session.close()

# %% Many images; a missing file raises, unless errors="yield"
for (path, _), outcome in mw.segment_many(
    [(photo, Prompt(points=[(260, 130)])), (Path("missing.jpg"), Prompt())], errors="yield"
):
    print(path, outcome)

# %% What is stored
for stored in mw.images(limit=5):
    print(stored.image_id, stored.width, stored.height)

# %%
mw.close()
