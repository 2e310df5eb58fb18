/* A function with more arguments than there are registers, of both kinds, and what it answers: another value for each
 * function, and for each argument that is wrong. */
#ifndef ANSWER_H
#define ANSWER_H

#define PARAMETERS                                                                                                     \
    long a, double p, long b, double q, long c, double r, long d, double s, long e, double t, long f, double u,        \
        long g, double v, long h, double w, long on_stack, double also_on_stack
#define ARGUMENTS 3, 5., 7, 11., 13, 17., 19, 23., 29, 31., 37, 41., 43, 47., 53, 59., 61, 67.

typedef long answer(PARAMETERS);

static inline long answer_of(int number, PARAMETERS)
{
    const long whole[] = {a, b, c, d, e, f, g, h, on_stack};
    const double real[] = {p, q, r, s, t, u, v, w, also_on_stack};
    long sum = number;
    for (int i = 0; i < 9; i++)
        sum = sum * 31 + whole[i] * 101 + (long)(real[i] * 10007.);
    return sum;
}

#endif
