#!/bin/bash
# A one-node SLURM on loopback from Debian's munge, slurmctld and slurmd, all files in one folder.
#   one_node.sh start FOLDER    prints what to export; exit status 75 with a reason where it cannot start
#   one_node.sh stop FOLDER     cancels its jobs and ends exactly the processes that start began
set -u
action=$1 folder=$2
export SLURM_CONF=$folder/slurm.conf
socket=$folder/munge.socket
# Job steps look here, whatever SLURM_CONF says: the executor's sbatch drops SLURM_* variables.
default=/etc/slurm/slurm.conf

cannot() { echo "$1" >&2; "$0" stop "$folder" >/dev/null 2>&1; exit 75; }
ended() { [ -S "$socket" ] && timeout 10 scancel --user="$(id -un)" 2>/dev/null && sleep 1
    for name in slurmd slurmctld munged; do
    pid=$(cat "$folder/$name.pid" 2>/dev/null) && [ -n "$pid" ] && kill "$pid" 2>/dev/null &&
        for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done; done
    [ "$(readlink $default)" = "$SLURM_CONF" ] && rm -f $default; true; }

if [ "$action" = stop ]; then ended; exit 0; fi
for program in munged slurmctld slurmd sbatch scontrol; do
    command -v "$program" >/dev/null || cannot "$program is not installed (Debian: munge slurmctld slurmd slurm-client)"
done
[ "$(id -u)" = 0 ] || cannot "slurmd needs root"
# A test that was killed leaves its link; where that leads nowhere it is nobody's.
[ -L $default ] && [ ! -e $default ] && rm -f $default
[ -e $default ] && cannot "$default exists: this machine has a SLURM of its own"
mkdir -p "$folder"/{state,spool,log} && chmod 755 "$folder" || cannot "cannot write $folder"
# --all: without it nproc believes OMP_NUM_THREADS
cores=$(nproc --all) memory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 * 9 / 10))
host=$(hostname -s)
dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 2>/dev/null && chmod 400 "$folder/munge.key"
munged --force --key-file="$folder/munge.key" --socket="$socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed" || cannot "munged did not start"
cat > "$SLURM_CONF" <<CONF
ClusterName=loopback
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,batch_sched_delay=0,bf_interval=2
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/jobs.txt
JobAcctGatherType=jobacct_gather/none
MinJobAge=86400
KillWait=5
GresTypes=gpu
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
# Two GPUs in name: what jobs ask for is granted and seen, and no device is handed to them.
printf "AutoDetect=off\nName=gpu File=/dev/tty[0-1] Flags=no_gpu_env\n" > "$folder/gres.conf"
mkdir -p /etc/slurm && ln -s "$SLURM_CONF" $default || cannot "cannot write $default"
: > "$folder/jobs.txt"
slurmctld || cannot "slurmctld did not start: $(tail -1 "$folder/log/slurmctld.log" 2>/dev/null)"
slurmd || cannot "slurmd did not start: $(tail -1 "$folder/log/slurmd.log" 2>/dev/null)"
for _ in $(seq 60); do
    sinfo --noheader --format=%T 2>/dev/null | grep -qE '^(idle|mixed|allocated)$' && { echo "SLURM_CONF=$SLURM_CONF"; exit 0; }
    sleep 0.5
done
cannot "the node did not come up: $(tail -1 "$folder/log/slurmd.log" 2>/dev/null)"
