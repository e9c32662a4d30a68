/* libmariadb's header, which has a list of its own with names of ours (Connector/C 3.3). */
#ifndef STORE_MYSQL_LIB_H
#define STORE_MYSQL_LIB_H

#include "list.h"

#define list_add libmariadb_list_add
#include <mysql.h>
#undef list_add
#undef list_push
#include <errmsg.h>
#include <mysqld_error.h>

#endif
