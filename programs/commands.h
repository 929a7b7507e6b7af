// SPDX-License-Identifier: MIT
/* All commands. argv[0] is the command name; returns the exit status. */
#ifndef BB_PROGRAMS_COMMANDS_H
#define BB_PROGRAMS_COMMANDS_H

int bb_cmd_train(int argc, char **argv);
int bb_cmd_eval(int argc, char **argv);
int bb_cmd_score(int argc, char **argv);
int bb_cmd_compress(int argc, char **argv);
int bb_cmd_decompress(int argc, char **argv);
int bb_cmd_generate(int argc, char **argv);
int bb_cmd_pack(int argc, char **argv);
int bb_cmd_export(int argc, char **argv);
int bb_cmd_convert(int argc, char **argv);
int bb_cmd_info(int argc, char **argv);
int bb_cmd_report(int argc, char **argv);
int bb_cmd_serve(int argc, char **argv);
int bb_cmd_bench(int argc, char **argv);

#endif
