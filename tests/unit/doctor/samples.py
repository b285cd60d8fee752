"""What nvidia-smi prints: of an H100 with driver 580, as it was; of an 8-GPU host by the documented format."""

HEAD = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 580.159.04             Driver Version: 580.159.04     CUDA Version: 13.0     |
+-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
"""

#: Drivers from 610 on name the two CUDA versions apart.
HEAD_UMD = "| NVIDIA-SMI 610.10    KMD Version: 610.10     CUDA UMD Version: 13.2     |\n"

H100 = (
    "0, NVIDIA H100 80GB HBM3, GPU-209ff6c5-3181-3b78-095f-6f757b408cd5, 580.159.04, 81559, 0, Enabled, 700.00, 700.00,"
    " Enabled, 0, 0, Disabled, Default\n"
)

UUID = "GPU-209ff6c5-3181-3b78-095f-6f757b408cd5"

#: A GPU without ECC and power management, as consumer cards answer.
CARD = (
    "0, NVIDIA GeForce RTX 4090, GPU-1, 550.54.15, 24564, 312, Disabled, [N/A], [N/A], [N/A], [N/A], [N/A], [N/A],"
    " Default\n"
)

TOPOLOGY_ONE = """\
\t\x1b[4mGPU0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m
GPU0\t X \t0-15\t0\t\tN/A

Legend:

  X    = Self
"""

TOPOLOGY_NVLINK = """\
\t\x1b[4mGPU0\tGPU1\tGPU2\tNIC0\tCPU Affinity\tNUMA Affinity\x1b[0m
GPU0\t X \tNV18\tNV18\tPIX\t0-55\t0
GPU1\tNV18\t X \tNV18\tNODE\t0-55\t0
GPU2\tNV18\tNV18\t X \tSYS\t56-111\t1
NIC0\tPIX\tNODE\tSYS\t X

Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)
"""

TOPOLOGY_MIXED = """\
\tGPU0\tGPU1\tGPU2\tGPU3\tCPU Affinity
GPU0\t X \tNV4\tSYS\tSYS\t0-31
GPU1\tNV4\t X \tSYS\tSYS\t0-31
GPU2\tSYS\tSYS\t X \tNV4\t32-63
GPU3\tSYS\tSYS\tNV4\t X \t32-63
"""

MEMINFO = """\
MemTotal:       131893632 kB
MemFree:         1000000 kB
MemAvailable:   98920224 kB
Buffers:            2604 kB
"""
