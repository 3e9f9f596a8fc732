//! The table of a run as a page of the documentation, and whether such a page is still about this run's cases.

use core::fmt::Write as _;

use crate::report::{Kind, Row, Table};

const HEAD: &str = "# What a death leaves

Written by the kill sweep; do not edit. A process is killed (SIGKILL) after every instruction of an operation, in every role;
then everybody else must go on, and the invariants must hold: no item lost, none twice unless it was redelivered, nobody asleep
for good. A *pair* is two deaths: A dies at one instruction, who recovers dies at another, and a third must go on.

```text
ci/kill_sweep.sh --markdown \"$PWD/docs/crash.md\"
```

`ci/kill_sweep.sh` also fails if the cases named here are not those that it ran. How many instructions an operation has depends on the
compiler, and for some on who comes first; that none of ours is bad does not.

";
const ROLES: &str = "Roles: **alone**, nobody else is active; **sleeper present**, somebody sleeps before the victim begins, or **sleepers**; **falling asleep**, the victim is
killed on its way to sleep, and asleep; **just woken**, it was given what it waited for and is killed on its way out; **second
waiter**, the same, and another sleeps behind it; **paused**, it is stopped at the instruction, somebody else acts, and it goes on;
**crash pairs**, as above; **SIGSTOP, SIGCONT**, it is stopped for long, and looked at.

";
const SEEDED: &str = "
## Bugs that it must find
Each check can fail: these are broken on purpose, and a run in which one of them is not found has failed. A case is ended after a few bad
points.

";
const BESIDE: &str = "
## glibc beside it
The same sweep over glibc's process-shared mutex (robust), rwlock, condition (with that mutex), semaphore and barrier, beside the case
of ours that does the same in the same role. Only the robust mutex promises anything after a death; the others have no way to be told of
one, which ours have. A survivor that sleeps with nobody left to wake it, or spins, hangs; a companion is one that slept before the
victim began or behind it. The survivors' part is to take and give up what the victim had; for the condition, two rounds of a new waiter
and a broadcast; for the barrier, two new parties.

";

/// The page; `libc` is the version of the C library whose primitives are in it.
#[must_use]
pub fn markdown(table: &Table, libc: &str) -> String {
    let mut text = HEAD.to_string();
    let (points, pairs) = (table.points("instruction"), table.points("pair"));
    let bad: u64 = table.of(Kind::Sound).map(|row| row.bad).sum();
    let _ =
        writeln!(text, "{points} kill points and {pairs} crash pairs: {bad} bad.\n\n## Every operation in every role");
    text.push_str(ROLES);
    text.push_str("| case | role | points taken at | kill points | pairs | bad |\n|---|---|---|---:|---:|---:|\n");
    for row in table.of(Kind::Sound) {
        let (points, pairs) = counts(row);
        let _ = writeln!(text, "{} {} | {points} | {pairs} | {} |", key(row), row.how, row.bad);
    }
    text.push_str(SEEDED);
    text.push_str("| case | role | points taken at | found at |\n|---|---|---|---|\n");
    for row in table.of(Kind::Seeded) {
        let _ = writeln!(text, "{} {} | {} of {} |", key(row), row.how, row.bad, row.points);
    }
    if table.of(Kind::Beside).next().is_some() {
        text.push_str(BESIDE);
        let _ = writeln!(text, "Version {libc}.\n");
        beside(table, &mut text);
    }
    text
}

fn beside(table: &Table, text: &mut String) {
    text.push_str(
        "| case | role | points taken at | kill points | bad | what the survivors find | ours | kill points | bad |\n",
    );
    text.push_str("|---|---|---|---:|---:|---|---|---:|---:|\n");
    for row in table.of(Kind::Beside) {
        let whys: Vec<String> = row.whys.iter().map(|(why, times)| format!("{why}: {times}")).collect();
        let _ = write!(text, "{} {} | {} | {} | {} |", key(row), row.how, row.points, row.bad, whys.join("; "));
        let ours = table.of(Kind::Sound).find(|ours| Some(ours.name) == row.beside && ours.role == row.role);
        let _ = match ours {
            Some(ours) => writeln!(text, " {} | {} | {} |", ours.name, ours.points, ours.bad),
            None => writeln!(text, " | | |"),
        };
    }
}

/// What of `text`, a page of [`markdown`], is not about the cases of `table`: rows that are missing, and if the table is of a
/// `whole` run, rows too many.
#[must_use]
pub fn stale(text: &str, table: &Table, whole: bool) -> Vec<String> {
    let keys: Vec<String> = table.rows().iter().map(key).collect();
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| case ");
    let missing = keys.iter().filter(|key| !text.lines().any(|line| line.starts_with(key.as_str())));
    let mut stale: Vec<String> = missing.map(|key| format!("has no row {key}")).collect();
    if whole {
        let gone = text.lines().filter(is_row).filter(|line| !keys.iter().any(|key| line.starts_with(key.as_str())));
        stale.extend(gone.map(|line| format!("has a row of no case: {line}")));
    }
    stale
}

/// How a row begins. A bar in a name would end the cell.
fn key(row: &Row) -> String {
    format!("| {} | {} |", row.name.replace('|', "\\|"), row.role)
}

/// Kill points and crash pairs, of which a case has one.
fn counts(row: &Row) -> (String, String) {
    let (points, none) = (row.points.to_string(), String::new());
    if row.how.starts_with("pair") { (none, points) } else { (points, none) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str, seeded: bool, beside: Option<&'static str>) -> Row {
        let (role, how) = ("alone", "instruction: every".to_string());
        let (bad, whys) = (u64::from(seeded || beside.is_some()), [("it hangs".to_string(), 1)].into());
        Row { name, role, how, points: 7, bad, first_bad: None, floor: 1, seeded, beside, whys, seconds: 1.0 }
    }

    fn table(names: &[&'static str]) -> Table {
        let mut table = Table::default();
        for name in names {
            table.add(row(name, false, None));
        }
        table.add(row("broken", true, None));
        table.add(row("glibc lock", false, Some("lock")));
        table
    }

    #[test]
    fn a_page_is_about_the_run_that_wrote_it() {
        let run = table(&["lock", "ring"]);
        let page = markdown(&run, "2.36");
        assert!(page.contains("\n14 kill points and 0 crash pairs: 0 bad.\n"), "{page}");
        assert!(
            page.contains("| glibc lock | alone | instruction: every | 7 | 1 | it hangs: 1 | lock | 7 | 0 |"),
            "{page}"
        );
        assert_eq!(stale(&page, &run, true), Vec::<String>::new());
        let bar = table(&["open | drop"]);
        assert!(markdown(&bar, "").contains("\n| open \\| drop | alone |"));
        assert_eq!(stale(&markdown(&bar, ""), &bar, true), Vec::<String>::new());
    }

    #[test]
    fn two_cases_of_one_name_are_wrong() {
        assert!(table(&["lock", "ring"]).is_right());
        assert_eq!(table(&["lock", "ring", "lock"]).ambiguous(), [("lock", "alone")]);
        assert!(!table(&["lock", "ring", "lock"]).is_right());
    }

    #[test]
    fn a_page_of_other_cases_is_stale() {
        let page = markdown(&table(&["lock", "ring"]), "2.36");
        assert_eq!(stale(&page, &table(&["lock", "queue"]), false), ["has no row | queue | alone |"]);
        assert_eq!(stale(&page, &table(&["lock"]), false), Vec::<String>::new());
        let gone = stale(&page, &table(&["lock"]), true);
        assert!(gone.len() == 1 && gone[0].contains("| ring |"), "{gone:?}");
        assert!(!stale("", &table(&[]), false).is_empty());
    }
}
