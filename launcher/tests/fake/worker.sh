#!/bin/sh
# A worker that only pretends: what it does for a candidate stands in the file $FAKE/CANDIDATE.
[ "${1:-}" != --version ] || { echo "qlaunch-worker fake"; exit 0; }
while [ $# -gt 0 ]; do
  case "$1" in --spec) spec=$2; shift ;; --attempt) attempt=$2; shift ;; esac
  shift
done
candidate=$(sed -n 's/^  "candidate": "\(.*\)",$/\1/p' "$spec")
mode=$(cat "$FAKE/$candidate" 2>/dev/null || echo ok)
perplexity=$(cat "$FAKE/$candidate.perplexity" 2>/dev/null || echo 100.0)
bytes=$(cat "$FAKE/$candidate.bytes" 2>/dev/null || echo 10251264)
gate=$(cat "$FAKE/$candidate.gate" 2>/dev/null || echo pass)
echo "$candidate" >> "$FAKE/ran"
[ -z "${HF_TOKEN:-}" ] || echo "$GREETING ${#HF_TOKEN}" >> "$FAKE/environment"
sequence=0

say() {
  printf '{"sequence":%s,"at":0,%s}\n' "$sequence" "$1" >> "$attempt/events.jsonl"
  sequence=$((sequence + 1))
}

outcome() {
  cat > "$attempt/outcome.json.partial" <<END
{"version":1,"candidate":"$candidate","status":"$1","error":$2,
 "checkpoint":{"path":"$attempt/checkpoint","bytes":$bytes,"source_bytes":20000000,"ratio":0.5,"effective_bits":8.5,
  "active_bytes_per_token":8100000,"compute":0.5,"assignment":"00"},
 "gates":[{"gate":"size","verdict":"$gate","evidence":["ratio 0.5"]}],
 "evaluation":{"perplexity":$perplexity,"nll":4.6,"tokens":511,"windows":1,"kl_mean":0.01},
 "phases":[],"threads":1,"worker":"0.1.0","peak_memory":1,"cpu_seconds":0.5}
END
  mv "$attempt/outcome.json.partial" "$attempt/outcome.json"
}

stop() {
  outcome interrupted null
  exit 85
}

say '"event":"phase","phase":"evaluate","total":10,"unit":"steps"'
say '"event":"progress","phase":"evaluate","done":5,"layer":1,"layers":2,"tokens_per_second":21400.0'
case "$mode" in
  fail)
    outcome failed '{"kind":"input","message":"NaN in a weight","place":{"key":"lm_head.weight"},"hint":"check the model"}'
    exit 3 ;;
  die) kill -9 $$ ;;
  die-once)
    if [ ! -e "$FAKE/$candidate.died" ]; then : > "$FAKE/$candidate.died"; kill -9 $$; fi ;;
  mute) echo "thread 'main' panicked at somewhere" >&2; exit 101 ;;
  garbage)
    echo 'this is no event' >> "$attempt/events.jsonl"
    sequence=$((sequence + 3))
    say '"event":"note","level":"warning","message":"look at this"' ;;
  wait)
    trap stop TERM
    while [ ! -e "$FAKE/go" ]; do sleep 0.02; done ;;
esac
mkdir -p "$attempt/checkpoint"
echo "$attempt" > "$attempt/checkpoint/model.safetensors"
echo '{}' > "$attempt/checkpoint/config.json"
if grep -q '"reference": "keep"' "$spec"; then : > "$attempt/reference.safetensors"; fi
out=$(sed -n 's/^    "out": "\(.*\)",$/\1/p' "$spec")
if [ -n "$out" ]; then mkdir -p "$out"; echo made > "$out/model.safetensors"; fi
say '"event":"finished"'
outcome done null
