"""Names, units and directions of what is measured: the one place that knows them."""

from collections import namedtuple

# key: in records; unit: in headings; digits: after the point; more: whether more is better.
Metric = namedtuple("Metric", "key title unit digits more")
# metrics: columns of its table; drawn: those of them that are in the picture.
Scenario = namedtuple("Scenario", "key title text metrics drawn")

RATE = Metric("gbit_per_s", "throughput", "Gbit/s", 2, True)
CPU = Metric("cpu_s_per_gb", "processor time of both daemons", "CPU s/GB", 2, False)
PACKETS = Metric("kpps", "packets delivered", "1,000 packets/s", 1, True)
CPU_PACKETS = Metric("cpu_s_per_mpacket", "processor time of both daemons", "CPU s/million", 2, False)
MEDIAN = Metric("median_us", "median", "median, µs", 0, False)
TAIL = Metric("p99_us", "99th percentile", "99th percentile, µs", 0, False)

SCENARIOS = [
    Scenario("tcp1", "One TCP stream", "IPv4 inside, IPv4 outside.", [RATE, CPU], [RATE, CPU]),
    Scenario("tcp8", "Eight TCP streams", "IPv4 inside, IPv4 outside; the sum.", [RATE, CPU], [RATE]),
    Scenario("tcp_bidir", "Both directions at once", "One TCP stream each way; the sum.", [RATE, CPU], [RATE]),
    Scenario("tcp_v6_inside", "IPv6 inside", "One TCP stream, IPv4 outside.", [RATE, CPU], [RATE]),
    Scenario("tcp_v6_outside", "IPv6 outside", "One TCP stream, IPv4 inside.", [RATE, CPU], [RATE]),
    Scenario("udp64", "Small UDP packets", "64 bytes of payload, as fast as the sender can; what arrives.", [PACKETS, CPU_PACKETS], [PACKETS]),
    Scenario("rtt_idle", "Round trip, idle", "One ping every 10 ms, nothing else.", [MEDIAN], [MEDIAN]),
    Scenario("rtt_loaded", "Round trip under load", "One ping every 10 ms beside one TCP stream.", [MEDIAN, TAIL, RATE], [MEDIAN, TAIL]),
]
BY_KEY = {scenario.key: scenario for scenario in SCENARIOS}

HUB_CPU = Metric("cpu_s_per_gb", "processor time of the hub's daemon", "hub's CPU s/GB", 2, False)
HUB_CORES = Metric("hub_cores", "processors that the hub's daemon keeps busy", "hub's processors", 2, False)
SCALING = [RATE, HUB_CPU, HUB_CORES]

NAMES = {"kernel": "kernel WireGuard"}


def name_of(impl):
    return NAMES.get(impl, impl)
