/*
 * The interpreter (interpreter.h).
 *
 *      FLINK_BRIDGE_PYTHON_VENV   a virtual environment whose packages are used; of the same minor version as this library was built for
 *      FLINK_BRIDGE_PYTHON_PATH   folders that modules are looked for in, before all others, separated by colons; else the working directory
 *
 * bridged sets them from its flags. It installs no signal handlers, and is never finalised: workers end by _exit.
 */
#include "worker/hosts/python/backend.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef HOST_PYTHON
#define HOST_PYTHON "/usr/bin/python3"
#endif

enum { PATH_SIZE = 4096, EXIT_FORKED = 86 };

struct package package;

static PyThreadState *resting; /* while nobody has entered */
static bool started;
static unsigned long own_thread;
volatile bool interpreter_forked;

static const struct bridge_host *host_known; /* of all steps */

/* Whose call is at hand. */
static const struct bridge_host *host_now;
static struct bridge_context *context_now;

/* ---- Words --------------------------------------------------------------------------------------------------------- */

static struct bridge_bytes text_of(const char *text)
{
	return (struct bridge_bytes){(const uint8_t *)text, strlen(text)};
}

/* Fails with words that are no exception's. Returns false. */
static bool __attribute__((format(printf, 3, 4)))
fail_in_words(const struct bridge_host *host, struct bridge_context *context, const char *format, ...)
{
	struct bridge_failure failure = {.size = sizeof(failure), .record = BRIDGE_NO_RECORD};
	char words[1024];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(words, sizeof(words), format, arguments);
	va_end(arguments);
	failure.message = text_of(words);
	host->fail(context, &failure);
	return false;
}

bool interpreter_text(PyObject *text, struct bridge_bytes *bytes)
{
	Py_ssize_t size;
	const char *data = PyUnicode_AsUTF8AndSize(text, &size);

	if (data)
		*bytes = (struct bridge_bytes){(const uint8_t *)data, (size_t)size};
	return data != NULL;
}

/* The exception at hand, with its traceback; never NULL. */
static PyObject *take_exception(void)
{
#if PY_VERSION_HEX >= 0x030c0000
	PyObject *value = PyErr_GetRaisedException();
#else
	PyObject *type, *value, *traceback;

	PyErr_Fetch(&type, &value, &traceback);
	PyErr_NormalizeException(&type, &value, &traceback);
	if (traceback)
		PyException_SetTraceback(value, traceback);
	Py_XDECREF(type);
	Py_XDECREF(traceback);
#endif
	return value ? value : Py_NewRef(Py_None);
}

int interpreter_fail(const struct bridge_host *host, struct bridge_context *context, uint32_t record)
{
	struct bridge_failure failure = {.size = sizeof(failure), .record = record};
	PyObject *error = take_exception();
	PyObject *words = package.describe ? PyObject_CallOneArg(package.describe, error) : NULL;
	PyObject *transient = words ? PyObject_CallOneArg(package.is_transient, error) : NULL;

	if (transient == Py_True)
		failure.flags = BRIDGE_TRANSIENT;
	if (!words || !interpreter_text(PyTuple_GET_ITEM(words, 0), &failure.kind) ||
	    !interpreter_text(PyTuple_GET_ITEM(words, 1), &failure.message) ||
	    !interpreter_text(PyTuple_GET_ITEM(words, 2), &failure.traceback) ||
	    !interpreter_text(PyTuple_GET_ITEM(words, 3), &failure.kinds)) {
		failure.kind = text_of(Py_TYPE(error)->tp_name);
		failure.message = text_of("an exception whose words cannot be had");
	}
	PyErr_Clear();
	host->fail(context, &failure);
	Py_XDECREF(transient);
	Py_XDECREF(words);
	if (PyExceptionInstance_Check(error)) /* the frames of the traceback hold what they worked on */
		PyException_SetTraceback(error, Py_None);
	Py_DECREF(error);
	return BRIDGE_FAILED;
}

/* ---- The log ------------------------------------------------------------------------------------------------------- */

/* Python's level as the worker's. */
static int level_of(long level)
{
	return level < 20 ? BRIDGE_DEBUG : level < 30 ? BRIDGE_INFO : level < 40 ? BRIDGE_WARN : BRIDGE_ERROR;
}

/* log(level, text): a line, or several. What threads say while no call is at hand goes to standard error by itself. */
static PyObject *log_lines(PyObject *self, PyObject *args)
{
	const char *text;
	long level;

	(void)self;
	if (!PyArg_ParseTuple(args, "ls", &level, &text))
		return NULL;
	if (host_now)
		host_now->log(context_now, level_of(level), text);
	else
		dprintf(STDERR_FILENO, "python thread: %.2000s\n", text);
	return Py_NewRef(Py_None);
}

/* ---- The module that the package finds in a worker ----------------------------------------------------------------- */

/* wake(): has those runs come again that wait for calls outside. From any thread. */
static PyObject *wake(PyObject *self, PyObject *unused)
{
	(void)self;
	(void)unused;
	if (host_known)
		host_known->wake();
	return Py_NewRef(Py_None);
}

static PyMethodDef module_methods[] = {
    {"wake", wake, METH_NOARGS, "Has runs come again that wait for calls outside."},
    {"log", log_lines, METH_VARARGS, "Writes into the worker's log."},
    {0},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_flink_bridge", .m_doc = "The worker.",
				    .m_size = -1, .m_methods = module_methods};

static PyObject *module_init(void)
{
	PyObject *made;

	if (PyType_Ready(&message_type) < 0 || PyType_Ready(&feed_type) < 0 || PyType_Ready(&backend_type) < 0)
		return NULL;
	made = PyModule_Create(&module);
	if (made && PyModule_AddObjectRef(made, "Message", (PyObject *)&message_type) < 0)
		Py_CLEAR(made);
	return made;
}

/* ---- Start --------------------------------------------------------------------------------------------------------- */

/* The folder that the package lies in: `python`, beside this library. */
static bool package_folder(char path[PATH_SIZE])
{
	Dl_info info;
	const char *slash;

	if (!dladdr((void *)(uintptr_t)&interpreter_start, &info))
		return false;
	slash = strrchr(info.dli_fname, '/');
	if (!slash || (size_t)snprintf(path, PATH_SIZE, "%.*s/python", (int)(slash - info.dli_fname), info.dli_fname) >=
			  PATH_SIZE)
		return false;
	return access(path, R_OK) == 0;
}

/* Modules in C look for the interpreter's symbols among those of the whole process. */
static void show_symbols(void)
{
	Dl_info info;

	if (dladdr((void *)(uintptr_t)&Py_InitializeFromConfig, &info))
		dlopen(info.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
}

/* The version that a virtual environment says it has. */
static bool venv_version(const char *venv, int *major, int *minor)
{
	char path[PATH_SIZE], line[1024];
	bool found = false;
	FILE *file;

	snprintf(path, sizeof(path), "%s/pyvenv.cfg", venv);
	file = fopen(path, "re");
	while (file && !found && fgets(line, sizeof(line), file))
		found = sscanf(line, " version = %d.%d", major, minor) == 2 ||
			sscanf(line, " version_info = %d.%d", major, minor) == 2;
	if (file)
		fclose(file);
	return found;
}

/* The program that the interpreter takes itself for, by which it finds its library and the packages. */
static bool find_program(const struct bridge_host *host, struct bridge_context *context, char path[PATH_SIZE])
{
	const char *venv = getenv("FLINK_BRIDGE_PYTHON_VENV");
	int major = 0, minor = 0;

	if (!venv || venv[0] == '\0') {
		snprintf(path, PATH_SIZE, "%s", HOST_PYTHON);
		return true;
	}
	if (!venv_version(venv, &major, &minor))
		return fail_in_words(host, context,
				     "the virtual environment %.300s (--python-venv) has no pyvenv.cfg that names a "
				     "version: make it with `python3 -m venv`",
				     venv);
	if (major != PY_MAJOR_VERSION || minor != PY_MINOR_VERSION)
		return fail_in_words(
		    host, context,
		    "the virtual environment %.300s (--python-venv) is of Python %d.%d, and the host of "
		    "Python steps was built for %d.%d: make the environment with that, or build the host with "
		    "`make HOST_PYTHON=/path/to/python%d.%d`",
		    venv, major, minor, PY_MAJOR_VERSION, PY_MINOR_VERSION, major, minor);
	if (snprintf(path, PATH_SIZE, "%s%s/bin/python", venv[0] == '/' ? "" : "./", venv) >= PATH_SIZE ||
	    access(path, X_OK) != 0)
		return fail_in_words(host, context, "the virtual environment %.300s (--python-venv) has no bin/python",
				     venv);
	return true;
}

/* Initialises it. */
static bool initialise(const struct bridge_host *host, struct bridge_context *context, const char *program)
{
	PyConfig config;
	PyStatus status;

	PyConfig_InitPythonConfig(&config);
	config.install_signal_handlers = 0;
	config.parse_argv = 0;
	/* What is compiled is known by its source's size and second: code that is replaced sooner would be taken for what it was. */
	config.write_bytecode = 0;
	status = PyConfig_SetBytesString(&config, &config.program_name, program);
	if (!PyStatus_Exception(status))
		status = PyConfig_SetBytesString(&config, &config.executable, program);
	if (!PyStatus_Exception(status))
		status = Py_InitializeFromConfig(&config);
	PyConfig_Clear(&config);
	if (PyStatus_Exception(status))
		return fail_in_words(host, context, "Python %d.%d does not start (as %.300s): %.300s", PY_MAJOR_VERSION,
				     PY_MINOR_VERSION, program,
				     status.err_msg ? status.err_msg : "it does not say why");
	return true;
}

/* Puts a folder in front of those that modules are looked for in. */
static bool add_folder(const char *folder, size_t size)
{
	PyObject *path = PySys_GetObject("path");
	PyObject *text = PyUnicode_DecodeFSDefaultAndSize(folder, (Py_ssize_t)size);
	bool added = path && text && PyList_Insert(path, 0, text) == 0;

	Py_XDECREF(text);
	return added;
}

/* The folders of the pipeline's own modules. */
static bool add_folders(void)
{
	const char *list = getenv("FLINK_BRIDGE_PYTHON_PATH");
	const char *end;
	char here[PATH_SIZE];
	bool added = true;

	if (!list || list[0] == '\0')
		return !getcwd(here, sizeof(here)) || add_folder(here, strlen(here));
	end = list + strlen(list);
	while (added && end > list) { /* from the back, as each goes to the front */
		const char *begin = end;
		while (begin > list && begin[-1] != ':')
			begin--;
		added = begin == end || add_folder(begin, (size_t)(end - begin));
		end = begin > list ? begin - 1 : list;
	}
	return added;
}

/* Takes an attribute out of a module of the package. */
static bool take(const char *from, const char *name, PyObject **object)
{
	PyObject *found = PyImport_ImportModule(from);

	*object = found ? PyObject_GetAttrString(found, name) : NULL;
	Py_XDECREF(found);
	return *object != NULL;
}

/* Loads the package, and has it log here. */
static bool load_package(void)
{
	static const char engine[] = "flink_bridge.engine", step[] = "flink_bridge.step",
			  message[] = "flink_bridge.message";
	PyObject *install = NULL, *own = NULL, *log = NULL, *done = NULL;

	if (take(engine, "find_target", &package.find_target) && take(engine, "Runner", &package.Runner) &&
	    take(engine, "describe", &package.describe) && take(engine, "is_transient", &package.is_transient) &&
	    take(engine, "StepError", &package.StepError) && take(step, "Context", &package.Context) &&
	    take(step, "Timer", &package.Timer) && take(message, "To", &package.To) &&
	    take(message, "Json", &package.Json) && take(message, "dumps", &package.dumps) &&
	    take(engine, "install_log", &install) && (own = PyImport_ImportModule("_flink_bridge")) &&
	    (log = PyObject_GetAttrString(own, "log")))
		done = PyObject_CallFunction(install, "Oi", log, 20);
	Py_XDECREF(install);
	Py_XDECREF(own);
	Py_XDECREF(log);
	Py_XDECREF(done);
	return done != NULL;
}

static void in_child(void)
{
	interpreter_forked = true;
}

bool interpreter_start(const struct bridge_host *host, struct bridge_context *context)
{
	char program[PATH_SIZE], folder[PATH_SIZE];

	host_known = host;
	if (started)
		return true;
	if (!package_folder(folder))
		return fail_in_words(host, context,
				     "the package flink_bridge is not in the folder `python` beside bridge_python.so");
	if (!find_program(host, context, program))
		return false;
	show_symbols();
	if (!Py_IsInitialized()) {
		if (PyImport_AppendInittab("_flink_bridge", module_init) < 0)
			return fail_in_words(host, context, "no memory for Python");
		if (!initialise(host, context, program))
			return false;
		own_thread = PyThread_get_thread_ident();
	} else {
		PyEval_RestoreThread(resting); /* an attempt before this one has failed */
	}
	started = add_folder(folder, strlen(folder)) && add_folders() && load_package();
	if (!started)
		interpreter_fail(host, context, BRIDGE_NO_RECORD);
	else
		pthread_atfork(NULL, NULL, in_child);
	resting = PyEval_SaveThread();
	return started;
}

/* ---- Entering and leaving ------------------------------------------------------------------------------------------ */

void interpreter_enter(const struct bridge_host *host, struct bridge_context *context)
{
	PyEval_RestoreThread(resting);
	host_now = host;
	context_now = context;
}

void interpreter_end_child(void)
{
	dprintf(STDERR_FILENO,
		"python: a process that a step has forked came back from the step, and ends: it is not the worker\n");
	_exit(EXIT_FORKED);
}

void interpreter_leave(void)
{
	if (interpreter_forked)
		interpreter_end_child();
	host_now = NULL;
	context_now = NULL;
	resting = PyEval_SaveThread();
}

/* ---- Forks --------------------------------------------------------------------------------------------------------- */

/* Calls a function of a module without arguments. NULL and an exception when that fails. */
static PyObject *call_module(const char *from, const char *name)
{
	PyObject *found = PyImport_ImportModule(from);
	PyObject *result = found ? PyObject_CallMethod(found, name, NULL) : NULL;

	Py_XDECREF(found);
	return result;
}

void interpreter_name_threads(char *text, size_t size)
{
	struct bridge_bytes names = {0};
	PyObject *found;

	interpreter_enter(NULL, NULL);
	found = call_module("flink_bridge.engine", "name_threads");
	if (found && interpreter_text(found, &names))
		snprintf(text, size, "%.*s", (int)names.size, (const char *)names.data);
	Py_XDECREF(found);
	PyErr_Clear();
	interpreter_leave();
}

/* What is there now is there to stay: the collector looks at it no more, and so does not write to its pages, which are shared. */
void interpreter_settle(void)
{
	PyObject *collected, *frozen;

	interpreter_enter(NULL, NULL);
	collected = call_module("gc", "collect");
	frozen = collected ? call_module("gc", "freeze") : NULL;
	Py_XDECREF(collected);
	Py_XDECREF(frozen);
	PyErr_Clear();
	interpreter_leave();
}

/* The handlers that modules have registered (os.register_at_fork) run here as around os.fork(), those of libraries in fork() itself. */
pid_t interpreter_fork(pid_t (*fork_now)(void *context), void *context)
{
	interpreter_enter(NULL, NULL);
	PyOS_BeforeFork();
	pid_t pid = fork_now(context);
	int error = errno;
	interpreter_forked = false; /* the child is a worker, not one that a step has forked */
	if (pid == 0)
		PyOS_AfterFork_Child();
	else
		PyOS_AfterFork_Parent();
	interpreter_leave();
	errno = error;
	return pid;
}

bool interpreter_is_own_thread(void)
{
	return PyThread_get_thread_ident() == own_thread;
}
