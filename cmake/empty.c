/* What the stubs of the driver's libraries are made of: nothing is taken from them at link time. */
typedef int empty;
