"""Everything is in pyproject.toml and CMakeLists.txt; this only has the one call the other."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "build_backend"))

from native_build import NativeBuild
from setuptools import Extension, setup

setup(ext_modules=[Extension("task_aware.ops._C", sources=[])], cmdclass={"build_ext": NativeBuild})
