//! Another program, which has functions of its own.

fn main() {
    crosslane::init();
    println!("{:?}", crosslane::spawn(|text: String| text.len(), "not the same".to_owned()).unwrap().join());
}
