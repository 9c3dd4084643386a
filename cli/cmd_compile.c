/*
 * `bridgectl compile`: a pipeline into its descriptor, on standard output or into a file.
 *
 * The file is written beside its place and renamed into it, so that whoever reads it sees the old descriptor or the new one,
 * never a half; after an error nothing has changed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/load.h"
#include "descriptor/descriptor.h"

/* Writes a descriptor into an open file, down to the disk. The descriptor of the file is closed. 0, or -1 with errno. */
static int descriptor_save(const struct descriptor *descriptor, int fd)
{
	FILE *file = fdopen(fd, "w");
	mode_t mask = umask(0);

	umask(mask);
	if (file == NULL) {
		close(fd);
		return -1;
	}
	descriptor_write(descriptor, file);
	bool fine = fflush(file) == 0 && !ferror(file) && fchmod(fd, 0666 & ~mask) == 0 && fsync(fd) == 0;
	int saved = errno;
	if (fclose(file) != 0 && fine)
		return -1;
	errno = saved;
	return fine ? 0 : -1;
}

/* Puts a descriptor in place of a file. The exit code. */
static int descriptor_replace(const struct descriptor *descriptor, const char *path)
{
	size_t size = strlen(path) + sizeof(".XXXXXX");
	char *beside = malloc(size);

	if (beside == NULL)
		return BRIDGECTL_FAILED;
	snprintf(beside, size, "%s.XXXXXX", path);
	int fd = mkstemp(beside);
	bool made = fd >= 0;
	bool fine = made && descriptor_save(descriptor, fd) == 0 && rename(beside, path) == 0;
	if (!fine) {
		fprintf(stderr, "bridgectl: %s could not be written: %s\n", path, strerror(errno));
		if (made)
			unlink(beside);
	}
	free(beside);
	return fine ? BRIDGECTL_OK : BRIDGECTL_FAILED;
}

/* `bridgectl compile PIPELINE [--config FILE] [--output FILE]` */
int cmd_compile(int argc, char **argv)
{
	struct arguments arguments;
	int code = arguments_read(&arguments, 1, 1, argc, argv);

	if (code >= 0)
		return code;
	struct descriptor *descriptor = load_pipeline(&arguments);
	if (descriptor == NULL)
		return BRIDGECTL_FAILED;
	const char *output = arguments_value(&arguments, "output");
	if (output == NULL || strcmp(output, "-") == 0)
		descriptor_write(descriptor, stdout);
	else
		code = descriptor_replace(descriptor, output);
	descriptor_free(descriptor);
	return code > 0 ? code : BRIDGECTL_OK;
}
