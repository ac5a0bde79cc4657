"""Install `spatial_nb`. Name, version and description are read from settings.ini; pins are in constraints.txt."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="], interpolation=None)
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]

# Worlds, scorers and data: all that needs no torch.
base = ["fastcore", "filelock", "lark", "numba", "numpy", "pandas", "pillow", "pyarrow", "pyyaml", "scipy", "text2num"]
base += ["tqdm"]

extras = {
    # models, training recipes, evaluation
    "train": [
        "accelerate",
        "datasets",
        "peft>=0.21",
        "safetensors",
        "tokenizers",
        "torch>=2.11",
        "torchvision",  # the processors of Qwen's models cannot be built without it
        "transformers>=5.17",
        "trl>=1.16",
    ],
    # ask models behind an endpoint; without it, scripted and replayed answers
    "chat": ["httpx2", "openai>=3.57", "pydantic>=2", "tenacity"],
    # a model at hand behind an OpenAI-compatible endpoint, `transformers serve`; the tests of 21_chat ask one
    "serve": ["transformers[serving]>=5.17"],
    # run and read the notebooks, draw the figures
    "notebooks": [
        "ipykernel",
        "ipython",
        "ipywidgets",
        "joblib",  # functions of a notebook in processes of their own
        "jupyterlab",
        "matplotlib",
        "nbconvert",
        "papermill>=2.7",
        "rich",
        "seaborn",
    ],
    # other people's simulators, to check ours against and to measure beside; only tests and stage 80_speed import them
    "peers": ["magiccube", "reasoning-gym"],
    # change the notebooks: nbdev 2 reads settings.ini (nbdev 3 does not) and works with exactly these of its friends
    "dev": ["execnb", "ghapi", "nbdev>=2.4.14,<3", "pytest", "ruff", "setuptools", "wheel"],
}
extras["dev"] = sorted({name for part in extras.values() for name in part})

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8") if (here / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=f">={cfg['min_python']}",
    install_requires=base,
    extras_require=extras,
    # data/ of the clone is spatial_nb/data of the wheel; the records under it are results, and stay in the repository
    packages=["spatial_nb", "spatial_nb.data"],
    package_dir={"spatial_nb": "spatial_nb", "spatial_nb.data": "data"},
    package_data={"spatial_nb.data": ["claims.yaml", "profiles/*.yaml", "detector/*", "tiny-vlm/*"]},
    entry_points={"console_scripts": ["spatial-nb=spatial_nb.reproduce:main"]},
    zip_safe=False,
)
