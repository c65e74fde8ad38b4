#!/usr/bin/env bash
# A list in braces as an argument of a function that is called by its qualified name, within a template, in a .cu file.
#
# One would expect: code for the host that g++ compiles, nvcc compiles too.
# What happens: `n = shapes::count({x.first, x.second})`, where x depends on the template's parameter, is an error with nvcc
#   13.0 ("expected ';' before '}' token", then a complaint about a comma operator). What nvcc hands to g++ has parentheses
#   around the braces, `({...})`, which for g++ is a block of statements. In a list of plain variables, or in a call by the
#   unqualified name, there are none. Newer releases (13.2.86 and 13.5.37 were tried) are right.
# Seen with nvcc 13.0.88 and g++ 12.2, 2026-11-28.
#
# Needs g++, a network and 400 MB for a minute; exits with status 1 if this is no longer the case.
set -euo pipefail
export LC_ALL=C
nvcc_version=${NVCC:-13.0.88}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "nvidia-cuda-nvcc==$nvcc_version" "nvidia-cuda-crt==$nvcc_version" \
    "nvidia-nvvm==$nvcc_version" "nvidia-cuda-runtime~=${nvcc_version%.*}.0"
nvcc=$(find "$folder/venv" -path '*/bin/nvcc' -type f)
chmod +x "$(dirname "$nvcc")"/*

cd "$folder"
cat >list.cu <<'CPP'
#include <cstdio>
#include <initializer_list>

namespace shapes {
struct Shape {
  int size;
  Shape(std::initializer_list<int> list) : size(static_cast<int>(list.size())) {}
};
inline int count(Shape shape) { return shape.size; }
}  // namespace shapes

struct Pair {
  int first, second;
};

template <typename T>
int count(T x) {
  int n;
  n = shapes::count({x.first, x.second});
  return n;
}

int main() { std::printf("%d\n", count(Pair{1, 2})); }
CPP
sed 's/shapes::count({x.first, x.second})/shapes::count(shapes::Shape{x.first, x.second})/' list.cu >named.cu

for name in list named; do
    for compiler in g++ nvcc; do
        if [[ $compiler == g++ ]]; then
            command=(g++ -x c++ -std=c++20 -c "$name.cu" -o "$name.o")
        else
            command=("$nvcc" -std=c++20 -arch=sm_90 -c "$name.cu" -o "$name.o")
        fi
        if "${command[@]}" 2>"$name.txt"; then
            echo "$name.cu, $compiler: compiled"
        else
            echo "$name.cu, $compiler: $(grep -m 1 error "$name.txt")"
        fi
    done
done | tee seen.txt
[[ $(grep -c compiled seen.txt) == 3 ]] && grep -q "^list.cu, nvcc: .*expected ';'" seen.txt
