module.exports = { StoreType: { Sqlite: 0, Sled: 1 } };
