"""The speed of okanjo_conductor beside that of other pools: same run, same work, two workers.

python -m benchmarks --quick                       a first look
python -m benchmarks --only noop --rivals pool     one workload, one rival
make bench                                         everything, and the files in docs/

__main__     the command line
rounds       runs each measurement in a process of its own, contender after contender
child        that process: one workload, one contender, one round
workloads    what is measured, and where the clock starts and stops
contenders   how each pool does the same thing; to add a rival, add a class and a line
jobs         what workers execute
bare         two plain processes without a pool: what the machine can do
targets      what we mean to reach, and whether we do
page, plot   the table for docs/performance.md, and the drawing
"""
