//! The process itself, as the kernel counts it: the metrics that every client library of Prometheus has, under the names
//! that dashboards know.

use crate::page::Page;
use procfs::WithCurrentSystemInfo as _;
use procfs::process::{LimitValue, Process};

crate::metrics! {
    /// Processor time that the process has used, in user and in kernel mode
    CPU: Counter = "process_cpu_seconds_total";
    /// Memory of the process that is in RAM
    RESIDENT: Gauge = "process_resident_memory_bytes";
    /// Address space of the process
    VIRTUAL: Gauge = "process_virtual_memory_bytes";
    /// File descriptors that are open
    OPEN_FDS: Gauge = "process_open_fds";
    /// File descriptors that may be open
    MAX_FDS: Gauge = "process_max_fds";
    /// When the process was started, in seconds since 1970
    START: Gauge = "process_start_time_seconds";
}

/// Adds what the kernel says; what it does not say is left out.
pub fn put(page: &mut Page) {
    let Ok(process) = Process::myself() else {
        return;
    };
    if let Ok(stat) = process.stat() {
        let ticks = procfs::ticks_per_second() as f64;
        page.put(CPU, (stat.utime + stat.stime) as f64 / ticks);
        page.put(RESIDENT, stat.rss_bytes().get());
        page.put(VIRTUAL, stat.vsize);
        put_descriptors(&process, page);
        if let Ok(booted) = procfs::boot_time_secs() {
            page.put(START, booted as f64 + stat.starttime as f64 / ticks);
        }
    }
}

fn put_descriptors(process: &Process, page: &mut Page) {
    if let Ok(open) = process.fd_count() {
        page.put(OPEN_FDS, open);
    }
    if let Ok(limits) = process.limits()
        && let LimitValue::Value(most) = limits.max_open_files.soft_limit
    {
        page.put(MAX_FDS, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Value;

    #[test]
    fn the_kernel_says_all_of_it_and_it_is_plausible() {
        let mut page = Page::default();
        put(&mut page);
        let values: Vec<(&str, f64)> = page
            .families()
            .map(|(metric, samples)| match samples {
                [one] => match one.value {
                    Value::Count(count) => (metric.name, count as f64),
                    Value::Amount(amount) => (metric.name, amount),
                },
                _ => panic!("{} has one sample", metric.name),
            })
            .collect();
        let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ALL.iter().map(|it| it.name).collect::<Vec<_>>());
        let at = |name| values.iter().find(|(it, _)| *it == name).unwrap().1;
        assert!(at("process_resident_memory_bytes") > 1e6);
        assert!(at("process_virtual_memory_bytes") > at("process_resident_memory_bytes"));
        assert!(at("process_open_fds") >= 3.0);
        assert!(at("process_max_fds") >= at("process_open_fds"));
        // After this was written, and before the next century.
        assert!((1.7e9..4.2e9).contains(&at("process_start_time_seconds")));
    }
}
