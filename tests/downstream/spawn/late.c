/* A constructor that is linked behind everything of Rust's, as those of C++ libraries may be. */

unsigned late_constructed;

static void construct(void) {
    late_constructed++;
}

__attribute__((section(".init_array"), used)) static void (*const LATE)(void) = construct;
