/* A library that is none of steps. */
int some_other_function(void);

int some_other_function(void)
{
	return 1;
}
