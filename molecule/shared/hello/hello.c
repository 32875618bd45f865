/* Copyright (c) The turnkey.hpc founders */
/* GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt) */
/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Ranks are on different hosts, data crosses between them, and the application may wait for its user. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    int rank, size, length, sum;
    char name[MPI_MAX_PROCESSOR_NAME];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Get_processor_name(name, &length);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("C: rank %d of %d on %s, sum %d, %s\n", rank, size, name, sum, getenv("COLOUR") ? getenv("COLOUR") : "-");
    fflush(stdout);
    /* Talks to the others until all see a file. */
    for (int here, all = argc < 3 || argv[1][0] != 'w'; !all; usleep(100000)) { /* poll interval */
        here = !access(argv[2], F_OK);
        MPI_Allreduce(&here, &all, 1, MPI_INT, MPI_LAND, MPI_COMM_WORLD);
    }
    if (argc > 1 && argv[1][0] == 'c' && rank == 1)
        *(volatile int *)0 = 1;
    if (argc > 1 && argv[1][0] == 'd') {
        /* Everybody waits for a message that nobody sends. */
        MPI_Recv(&sum, 1, MPI_INT, (rank + 1) % size, 7, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();
    return 0;
}
