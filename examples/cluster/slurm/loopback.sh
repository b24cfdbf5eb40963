#!/usr/bin/env bash
# Starts Slurm on this one machine, with four nodes on loopback, runs a command in it and stops it. For tests: real
# clusters have Slurm already. Needs root and Debian's packages: apt install slurmctld slurmd slurm-client munge
#
#   loopback.sh COMMAND...
set -euo pipefail

for program in slurmctld slurmd sbatch munged; do
  command -v "$program" >/dev/null || { echo "loopback.sh: $program is not installed" >&2; exit 6; }
done
[ "$(id -u)" = 0 ] || { echo "loopback.sh: slurmd has to run as root" >&2; exit 2; }

dir=$(mktemp -d)
host=$(hostname -s)
munge= daemons=()
# Slurm's own way down first; whoever has not gone by then is killed. Munge, which they all need, goes last.
stop() {
  scontrol shutdown >/dev/null 2>&1 || true
  for _ in $(seq 30); do
    kill -0 "${daemons[@]}" 2>/dev/null || break
    sleep 0.1
  done
  kill -9 "${daemons[@]}" 2>/dev/null || true
  [ -z "$munge" ] || kill "$munge" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap stop EXIT

mkdir -p "$dir"/{state,spool,munge}
cat > "$dir/slurm.conf" <<CONF
ClusterName=loopback
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
MinJobAge=3600
ReturnToService=2
MpiDefault=none
NodeName=node[0-3] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17000-17003] CPUs=1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
CONF
export SLURM_CONF=$dir/slurm.conf

# A munge of our own, so that one that runs already is left alone.
head -c 1024 /dev/urandom > "$dir/munge/key"
chmod 700 "$dir/munge"
chmod 400 "$dir/munge/key"
munged --foreground --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munge/pid" \
  --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" 2>/dev/null & munge=$!
for _ in $(seq 50); do [ -S "$dir/munge/socket" ] && break; sleep 0.1; done
slurmctld -D 2>"$dir/slurmctld.err" & daemons+=($!)
for n in 0 1 2 3; do
  mkdir -p "$dir/spool/node$n"
  slurmd -D -N "node$n" 2>"$dir/slurmd-$n.err" & daemons+=($!)
done
for _ in $(seq 100); do
  [ "$(sinfo --noheader --states=idle --format=%D 2>/dev/null || true)" = 4 ] && break
  sleep 0.3
done
if [ "$(sinfo --noheader --states=idle --format=%D)" != 4 ]; then
  echo "loopback.sh: the nodes did not come up" >&2
  sinfo >&2 || true
  tail -n 20 "$dir"/*.err "$dir"/*.log >&2
  exit 6
fi
"$@"
