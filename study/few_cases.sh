#!/bin/bash
# Few cases: from nothing, and from a run on other data with other landmarks.
#
#   bash study/few_cases.sh phantom runs/few            its second site, after a run on its first
#   bash study/few_cases.sh mouse runs/few MOUSE_CT     the other half of the landmarks
#   python -m study.draw_few runs/few                   the chart of both
#
# Both halves of the landmarks have points of the midline and whole pairs. An hour on two cores.
# Stopped and started again it goes on where it was.
set -euo pipefail
kind=$1 out=$2/$1
shared=(--config.report.on=False --config.data.validation_share=0.0 --config.log.save_every=200
  "--config.model.widths=(8,16,32,64)" --config.optim.lr=5e-3)
case $kind in
  phantom)
    root=$out/cohort
    [ -e "$root/cases.csv" ] || python launch.py --config=configs/emd.py --mode=phantom \
      --output="$root" --config.phantom.cases=200 --config.phantom.test_seed=4
    shared+=(--config=configs/emd.py --config.grid.side=24 --config.train.steps=400)
    first="('n','sn','li','pg','enL','enR','acL','acR','chL','chR')"
    second="('prn','ls','sl','exL','exR','alL','alR','cphL','cphR')" ;;
  mouse)
    root=$3
    shared+=(--config=configs/mouse_ct.py --config.aligned.on=False --config.grid.side=32
      --config.train.steps=400)
    list() { seq "$1" 2 51 | grep -vxE "23|26|34|35|45|48" | sed "s/.*/'&'/" | paste -sd, | sed 's/.*/(&)/'; }
    first=$(list 1) second=$(list 2) ;;
esac
[ -e "$out/data" ] || { python study/choose_few.py "$kind" "$root" "$out/data.unfinished" && mv "$out/data.unfinished" "$out/data"; }
train() {
  local name=$1 data=$2; shift 2
  python launch.py --workdir="$out/$name" --config.data.root="$out/data/$data" "${shared[@]}" "$@"
}
train start start "--config.data.labels=$first" --config.train.steps=1200
for seed in 0 1 2; do
  for count in 2 4 8 16; do
    few=("$count-$seed" "--config.data.labels=$second" --config.seed="$seed")
    train "nothing-$count-$seed" "${few[@]}"
    train "run-$count-$seed" "${few[@]}" --config.init.run="$out/start"
  done
done
