"""The steered network towards the published objective alone: four terms over sentences, and no picture of any word.

    langfuse-jax train --config words_alone --workdir runs/alone --config.data.root=DATA

Hardware and expected time as of configs/words.py. Expected result: with the compact CLIP, a sound default picture that
words hardly move (docs/words.md shows it after 3 000 steps). With OpenAI's CLIP it is the honest objective, for nothing
but words says what a picture is to be:
--config.clip=openai/clip-vit-base-patch32 --config.goals=sentences.txt --config.vgg=vgg19.safetensors
"""

from langfuse_jax.configs import words


def get_config():
    c = words.get_config()
    c.loss = {"whole": 2.0, "patch": 10.0, "similarity": 6.0, "perceptual": 10.0}
    c.loss.update({"guide": 0.0, "anchor": 0.0, "goal": 0.0})
    return c
