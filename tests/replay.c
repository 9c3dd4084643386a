/*
 * Runs a fuzz target over a stored corpus without libFuzzer: `replay_x FOLDER-OR-FILE...`. So every input that was ever worth
 * keeping is a test of every build, whatever the compiler. Prints "N inputs" at the end.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Feeds one file to the target, in a block of exactly its size so that ASan sees any step beyond it. */
static int replay_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	struct stat about;
	if (file == NULL || fstat(fileno(file), &about) != 0) {
		perror(path);
		exit(2);
	}
	size_t size = (size_t)about.st_size;
	uint8_t *data = malloc(size ? size : 1);
	if (data == NULL || fread(data, 1, size, file) != size) {
		perror(path);
		exit(2);
	}
	fclose(file);
	fprintf(stderr, "%s\n", path);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	return 1;
}

/* Feeds every file of a folder and those below it, or a single file. Returns how many. */
static int replay_path(const char *path)
{
	DIR *folder = opendir(path);
	if (folder == NULL)
		return replay_file(path);
	int inputs = 0;
	for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
		if (entry->d_name[0] == '.')
			continue;
		char name[4096];
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		inputs += replay_path(name);
	}
	closedir(folder);
	return inputs;
}

int main(int argc, char **argv)
{
	int inputs = 0;
	for (int i = 1; i < argc; i++)
		inputs += replay_path(argv[i]);
	printf("%d inputs\n", inputs);
	return inputs > 0 ? 0 : 1;
}
