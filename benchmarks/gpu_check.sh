#!/usr/bin/env bash
# Checks this repository on a machine with one NVIDIA GPU of compute capability 9.0, in less than ten minutes.
#
#   benchmarks/gpu_check.sh OUT                      run everything; replaces earlier results in OUT (start with OUT/summary.md)
#   benchmarks/gpu_check.sh --only PART[,PART] OUT   run only these parts, keep the other results in OUT
#   benchmarks/gpu_check.sh --dry-run OUT            rehearse without a GPU, as far as possible; works with --only
#
# Needs Python with the package's dependencies and those of its tests, nvcc, ninja, cmake and pybind11, and installs
# nothing; ncu, compute-sanitizer and pytest-xdist are used where they are. A part that fails, hangs or lacks its tool is
# noted, and the next goes on. The exit status is 0 if all parts passed, 1 if not, 2 for a wrong call.
set -euo pipefail

# The parts in their order: name, its log in OUT (without .log), the most seconds it may take on a GPU and in a dry run.
# A part may also use the time that earlier ones left. Together they stay below 570 s.
readonly PARTS='
environment      machine       15   120
build            machine      110  2400
tests            tests         95   300
benchmarks       benchmarks   130   600
profile          profile       45   180
memcheck         sanitizer     35   180
racecheck        sanitizer     40   180
train            trainings     33   240
train_graph      trainings     33    20
train_bfloat16   trainings     33    20
'

# The last seconds of a part: what it holds is interrupted first, so that it can still write, then killed.
readonly GRACE=5

# Exit status of a part that lacks its tool.
readonly SKIPPED=77

# Tests that the sanitizer watches: each kernel at each shape once, in float32. racecheck is slower.
readonly MEMCHECKED='(value or gradients or rows) and dtype0 and not cuda-reference'
readonly RACECHECKED='value and dtype0 and not cuda-reference'

part_environment() {
  local status=0 options=()
  date -u
  echo "commit $(git rev-parse HEAD 2>/dev/null || echo unknown), $(cores) CPU cores"
  nvidia-smi || ((dry)) || status=1
  nvcc --version || ((dry)) || status=1
  ((dry)) || options=(--gpu)
  "$python" -m benchmarks.gpu_environment "${options[@]}" || status=$?
  return $status
}

part_build() {
  local corpus info
  command -v nvcc >/dev/null || skip "nvcc is not on PATH"
  MAX_JOBS=$(($(cores) > 1 ? $(cores) - 1 : 1))
  export TASK_AWARE_CUDA=1 TORCH_CUDA_ARCH_LIST=9.0 MAX_JOBS
  if ((dry)); then  # beside the checkout, whose own libraries stay
    "$python" setup.py build_ext --build-lib "$temporary/lib" --build-temp "$temporary/build"
    ls -l "$temporary/lib/task_aware/ops"
    return
  fi
  "$python" -m task_aware.corpus --quiet &
  corpus=$!
  "$python" setup.py build_ext --inplace
  wait "$corpus"
  info=$("$python" -m task_aware.info)
  echo "$info"
  grep -q '^CUDA kernels *built by nvcc' <<<"$info"
}

part_tests() {
  local workers=()
  if ((dry)); then
    "$python" -m pytest tests -m gpu --collect-only -qq
    return
  fi
  if has_module xdist; then workers=(-n 6); else echo "pytest-xdist is not installed: the tests run in one process"; fi
  with_result passed "$python" -m pytest tests -m gpu "${workers[@]}" -q -rfEs --tb=short --continue-on-collection-errors
}

part_benchmarks() {
  local json=(--benchmark-json "$out/benchmarks.json") headline
  headline=(benchmarks/test_{pit_loss,mel_mask,reverb_mix,mel_spectrogram,mask_resynthesis,training_step,glu_pool,depthwise_prelu,gru}.py -m gpu --headline)
  if ((dry)); then
    "$python" -m pytest "${headline[@]}" --collect-only -q
    "$python" -m pytest benchmarks --quick "${json[@]}"
    return
  fi
  with_result passed "$python" -m pytest "${headline[@]}" -v -s -rfE --tb=short "${json[@]}"
}

part_profile() {
  local command=(ncu --profile-from-start off --clock-control none
    --kernel-name-base demangled --kernel-name regex:task_aware
    --section SpeedOfLight --section MemoryWorkloadAnalysis --section MemoryWorkloadAnalysis_Tables
    --section Occupancy --section WarpStateStats
    "$python" -m benchmarks.profile_operators)
  printf '$ %s\n' "${command[*]@Q}"
  if ((dry)); then
    "$python" -m benchmarks.profile_operators --device cpu
    return
  fi
  command -v ncu >/dev/null || skip "ncu is not on PATH"
  with_result Duration "${command[@]}"
}

# sanitize TOOL TESTS OPTION...: one of compute-sanitizer's tools over tests of the operators, for this package's kernels.
sanitize() {
  local tests=("$python" -m pytest tests/ops -m gpu -k "$2")
  local command=(compute-sanitizer --tool "$1" "${@:3}" --kernel-name kns=task_aware --error-exitcode 9
    "${tests[@]}" -q -rfE --tb=short)
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1  # so that arrays do not lie in one allocation, within bounds of each other
  printf '$ PYTORCH_NO_CUDA_MEMORY_CACHING=1 %s\n' "${command[*]@Q}"
  if ((dry)); then
    "${tests[@]}" --collect-only -qq
    return
  fi
  command -v compute-sanitizer >/dev/null || skip "compute-sanitizer is not on PATH"
  with_result passed "${command[@]}"
}

part_memcheck() { sanitize memcheck "$MEMCHECKED" --report-api-errors no; }

part_racecheck() { sanitize racecheck "$RACECHECKED"; }

# train NAME OPTION...: a short training, and its curves in the log.
train() {
  local run=$temporary/$1 command
  command=("$python" -m task_aware.train --fused --max-steps 60 "${@:2}" --out "$run")
  if ((dry)) && [[ $1 == train ]]; then command+=(--fast-dev-run); fi
  printf '$ %s\n' "${command[*]@Q}"
  if ((dry)) && [[ $1 != train ]]; then return; fi
  "${command[@]}"
  echo "metrics.csv:"
  cat "$run/logs/part_0/metrics.csv"
}

part_train() { train train; }

part_train_graph() { train train_graph --cuda-graph; }

part_train_bfloat16() { train train_bfloat16 --precision bf16-mixed --losses.deep_feature 1; }

# with_result WORD COMMAND...: the command must also print the word, which it does not where all was skipped.
with_result() {
  "${@:2}" | tee -i "$temporary/result"  # an interrupt is for the command alone, which may have more to say
  grep -qw -- "$1" "$temporary/result" || { echo "the output never says \"$1\": probably everything was skipped, or the build part has not run"; return 1; }
}

cores() { env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc; }

has_module() { "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)' "$1"; }

skip() {
  echo "skipped: $1"
  exit "$SKIPPED"
}

refuse() {
  echo "gpu_check.sh: $1" >&2
  exit 2
}

# run_part NAME LOG SECONDS: runs a part in a process group of its own, its output both here and in its log.
run_part() {
  local name=$1 log=$out/$2.log limit=$3 start=$SECONDS status=0 verdict pipe writer i
  mkfifo "$temporary/output"
  set -m  # a process group for each, which Ctrl-C reaches through the trap alone
  tee -a "$log" <"$temporary/output" &
  writer=$!
  exec {pipe}>"$temporary/output"
  rm "$temporary/output"
  printf '==> %s, at most %d s%s\n' "$name" "$limit" "$( ((dry)) && echo ', dry run')" >&"$pipe"
  timeout --signal=INT --kill-after=$GRACE $((limit - GRACE)) bash -euo pipefail -c "part_$name" >&"$pipe" 2>&1 &
  child=$!
  set +m
  while true; do
    status=0
    wait "$child" || status=$?
    kill -0 "$child" 2>/dev/null || break  # a signal to this script ends `wait` before the part has ended
  done
  kill -KILL -- "-$child" 2>/dev/null || true  # what it left running
  child=
  if ((interrupted)); then
    verdict="interrupted"
  else
    case $status in
      0) verdict="passed" ;;
      "$SKIPPED") verdict="skipped" ;;
      124 | 137) verdict="stopped" ;;
      *) verdict="failed with status $status" ;;
    esac
  fi
  [[ $verdict == passed ]] || { ((dry)) && [[ $verdict == skipped ]]; } || failed+=("$name")
  printf '\n==> %s: %s, %d s\n' "$name" "$verdict" $((SECONDS - start)) >&"$pipe"
  exec {pipe}>&-
  for ((i = 0; i < 50; i++)); do  # a process that has left the group may hold the pipe open
    kill -0 "$writer" 2>/dev/null || break
    sleep 0.1
  done
  kill "$writer" 2>/dev/null || true
}

summarise() {
  summarised=0
  "$python" -m benchmarks.gpu_summary "$out" "${parts[@]}" || summarised=$?
}

mapfile -t parts < <(awk 'NF { print $1 }' <<<"$PARTS")
dry=0 only='' out='' interrupted=0 child='' summarised=0 failed=()
while (($#)); do
  case $1 in
    -h | --help)
      sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
      echo "Parts: ${parts[*]}"
      exit 0
      ;;
    --dry-run) dry=1 ;;
    --only)
      (($# > 1)) || refuse "--only needs the names of parts, such as tests,benchmarks"
      only=$2
      shift
      ;;
    --only=*) only=${1#*=} ;;
    -*) refuse "there is no option $1; --help lists what there is" ;;
    *)
      [[ -z $out ]] || refuse "give only one folder for the results; got $out and $1"
      out=$1
      ;;
  esac
  shift
done
[[ -n $out ]] || refuse "name a folder for the results: benchmarks/gpu_check.sh OUT"
for name in ${only//,/ }; do
  [[ " ${parts[*]} " == *" $name "* ]] || refuse "there is no part $name; choose among ${parts[*]}"
done
mkdir -p -- "$out" 2>/dev/null || refuse "cannot create the folder $out"
out=$(cd -- "$out" && pwd)
[[ -w $out ]] || refuse "$out cannot be written"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(command -v python || command -v python3) || refuse "there is no Python on PATH"

exec </dev/null
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
trap 'interrupted=1; [[ -z $child ]] || kill -INT "$child" 2>/dev/null || true' INT TERM HUP
PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
if ((dry)); then PYTHONPATH=$temporary/lib${PYTHONPATH:+:$PYTHONPATH}; fi  # where the dry build lies
export PATH PYTHONPATH PYTHONUNBUFFERED=1 dry out python temporary SKIPPED MEMCHECKED RACECHECKED
while read -r _ _ name; do export -f "${name?}"; done < <(declare -F | grep -E ' (part_|(train|sanitize|with_result|skip|cores|has_module)$)')

if [[ -z $only ]]; then
  rm -f -- "$out"/{machine,tests,benchmarks,profile,sanitizer,trainings}.log "$out"/{benchmarks.json,summary.md}
fi
end=$SECONDS
while read -r name log seconds dry_seconds <&3; do
  [[ -n $name ]] || continue
  [[ -z $only || ,$only, == *,$name,* ]] || continue
  end=$((end + (dry ? dry_seconds : seconds)))
  run_part "$name" "$log" $((end - SECONDS))
  summarise
  ((interrupted == 0)) || break
done 3<<<"$PARTS"
echo
cat "$out/summary.md"
((interrupted == 0)) || exit 130
if ((${#failed[@]} || summarised)); then
  echo "not passed: ${failed[*]:-the comparison of the trainings}" >&2
  exit 1
fi
