// Copyright (c) The turnkey.hpc founders
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
#include <mpi.h>
#include <iostream>
#include <string>
int main(int argc, char **argv)
{
    int rank, length;
    char name[MPI_MAX_PROCESSOR_NAME];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Get_processor_name(name, &length);
    std::cout << "C++: rank " + std::to_string(rank) + " on " + name + "\n" << std::flush;
    MPI_Finalize();
}
