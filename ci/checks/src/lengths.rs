//! Lengths of files and functions: what no longer fits on a screen is reported, what is far over it is a fault.

use std::path::Path;

use crate::Faults;
use crate::source::{self, Source};

const DIRS: [&str; 6] = ["core/src", "sync/src", "shm/src", "derive/src", "src", "ci/checks/src"];
const FILE_AIM: usize = 600;
const LIB_AIM: usize = 120;
const FUNCTION_AIM: usize = 40;
const FUNCTION_LIMIT: usize = 70;

/// Reports what is over its aim; a function over the limit or a `lib.rs` over its aim is a fault.
pub(crate) fn check(root: &Path) -> Faults {
    let mut faults = Vec::new();
    let (mut files, mut functions) = (0, 0);
    for source in source::read_all(root, &DIRS)? {
        files += 1;
        let len = source.lines.iter().filter(|line| !line.test).count();
        if source.path.ends_with("/lib.rs") && len > LIB_AIM {
            faults.push(format!("{}: {len} lines, and a lib.rs has at most {LIB_AIM}", source.path));
        } else if len > FILE_AIM {
            println!("long file: {} has {len} lines without its tests, aim {FILE_AIM}", source.path);
        }
        for (name, line, len) in functions_of(&source) {
            functions += 1;
            if len > FUNCTION_LIMIT {
                faults.push(format!("{}:{line}: fn {name} has {len} lines, limit {FUNCTION_LIMIT}", source.path));
            } else if len > FUNCTION_AIM {
                println!("long function: {}:{line} fn {name} has {len} lines, aim {FUNCTION_AIM}", source.path);
            }
        }
    }
    println!("lengths: {files} files, {functions} functions");
    Ok(faults)
}

/// Name, line (from 1) and length in lines of each function with a body.
fn functions_of(source: &Source) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (i, line) in source.lines.iter().enumerate() {
        let mut words = source::words(&line.code).map(|(_, word)| word);
        if words.by_ref().any(|word| word == "fn")
            && let (Some(name), Some(end)) = (words.next(), source.item_end(i))
        {
            found.push((name.to_owned(), i + 1, end - i + 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_ends_at_its_brace() {
        let text = "impl A {\n    fn a<T, const N: usize>(\n        x: u8,\n    ) -> u8 {\n        if x > 1 {\n        }\n    }\n    fn b();\n}\n";
        let found = functions_of(&Source::new("x.rs".into(), text));
        assert_eq!(found, [("a".to_owned(), 2, 6), ("b".to_owned(), 8, 1)]);
    }
}
