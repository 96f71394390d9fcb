"""Python packages beyond those that Slicer bundles, by what they are for; each is asked for when it is first needed."""

SEGMENTATION = ("onnxruntime>=1.20",)
#: Installed by Slicer's PyTorch extension alone.
TORCH = "torch>=2.6"
TORCH_WEIGHTS = ("safetensors>=0.5",)
ELASTIX = ("itk-elastix>=0.25",)
STATISTICS = ("pandas>=2.2", "statsmodels>=0.14.4", "numba>=0.61", "threadpoolctl>=3.5")
STUDY = (*STATISTICS, *SEGMENTATION, "jinja2>=3.1", "matplotlib>=3.9", "filelock>=3.13")
CLUSTER = ("dask>=2025.1", "distributed>=2025.1")
