//! What the measurements ran on.

use std::fs;
use std::process::Command;

/// Above this many runnable tasks in the last minute the machine is called busy.
const BUSY: f64 = 0.5;

/// Date, CPUs, kernel and compiler, as far as they can be told.
pub fn description() -> String {
    let date = said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]);
    let cpu = fs::read_to_string("/proc/cpuinfo").ok();
    let cpu = cpu.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("model name")));
    let cpu = cpu.map_or("unknown CPU", |model| model.trim_start_matches([' ', '\t', ':']));
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let (kernel, compiler) = (said("uname", &["-r"]), said("rustc", &["--version"]));
    format!("{date}; {cpu}, {cpus} CPUs; Linux {kernel}; {compiler}")
}

/// A warning, if others use the machine.
pub fn busy() -> Option<String> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    let load: f64 = text.split(' ').next()?.parse().ok()?;
    (load > BUSY).then(|| format!("warning: a busy machine: {load} tasks wanted a CPU in the last minute"))
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| format!("no {program}"))
}
