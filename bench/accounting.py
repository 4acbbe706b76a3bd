"""What a tree of processes has cost so far (CPU time, memory) and what the whole machine has, read from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
COARSE_DISAGREEMENT_NS = 50_000_000
"""By so much may the two counts differ through rounding; more than that means that a thread or child ended."""

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class CpuReading:
    """CPU time of a tree of processes at one moment, by two clocks."""

    exact_ns: int
    """Sum over the threads that live now, in nanoseconds."""
    waited_ns: int
    """What those threads spent ready to run while another had the core."""
    coarse_ns: int
    """Sum over processes and their reaped children, counted in clock ticks: also knows of threads that have ended."""

    def since(self, earlier: "CpuReading") -> int:
        """Nanoseconds spent since an earlier reading: the exact count unless it has lost something."""
        exact = self.exact_ns - earlier.exact_ns
        coarse = self.coarse_ns - earlier.coarse_ns
        return coarse if coarse - exact > COARSE_DISAGREEMENT_NS else exact


def process_tree(root_pid: int) -> list[int]:
    """The process and all its descendants that live now."""
    found = [root_pid]
    for pid in found:
        for task in _tasks(pid):
            found.extend(int(child) for child in _read(task / "children").split())
    return found


def read_cpu(root_pid: int) -> CpuReading:
    """CPU time of the process and its descendants."""
    exact = waited = coarse = 0
    for pid in process_tree(root_pid):
        # The command's name may hold spaces and parentheses; the fields are counted from its last parenthesis.
        fields = _read(PROC / str(pid) / "stat").rpartition(")")[2].split()
        if fields:
            coarse += sum(int(ticks) for ticks in fields[11:15]) * TICK_NS
        for task in _tasks(pid):
            on_core, ready, *_ = _read(task / "schedstat").split() or ("0", "0")
            exact += int(on_core)
            waited += int(ready)
    return CpuReading(exact, waited, coarse)


def read_pss_mb(root_pid: int) -> float:
    """Proportional set size of the tree in MB (1e6 bytes): memory shared among processes is shared out among them."""
    total_kib = 0
    for pid in process_tree(root_pid):
        for line in _read(PROC / str(pid) / "smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                total_kib += int(line.split()[1])
    return total_kib * 1024 / 1e6


def read_machine_busy_ns() -> int:
    """CPU time that all processes of the machine have spent, and what a hypervisor withheld; interrupts left out."""
    fields = _read(PROC / "stat").splitlines()[0].split()
    user, nice, system, steal = (int(fields[i]) for i in (1, 2, 3, 8))
    return (user + nice + system + steal) * TICK_NS


def _tasks(pid: int) -> list[Path]:
    try:
        return list((PROC / str(pid) / "task").iterdir())
    except OSError:
        return []


def _read(path: Path) -> str:
    # A process may end between being listed and being read: it then counts as nothing.
    try:
        return path.read_text()
    except OSError:
        return ""
