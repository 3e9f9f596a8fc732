//! With the argument `init`: children start in `main`, by `crosslane::init()`. Without: before `main`, of which nothing
//! runs in them. The other argument is a program of another build.

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has_init = arguments[1] == "init";
    if has_init {
        crosslane::init();
    } else {
        println!("main");
    }
    spawn::check_all(arguments[2].as_ref());
    println!("{}: all well", arguments[1]);
}
