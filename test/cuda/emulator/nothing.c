// A library that need only be there.
int emulated_nothing;
