/** Something that the user can mend; its message is one line. */
export class UserError extends Error {}
